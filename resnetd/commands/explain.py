"""`resnetd explain`: where in this picture did the network see that?"""

from pathlib import Path
from typing import Annotated

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.files import save
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server


def explain(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="An image file.")],
    *,
    model: Annotated[
        str | None, typer.Option(show_default=False, help="`name`, `name@3` or `name@alias`; else the server's own.")
    ] = None,
    class_index: Annotated[
        int | None, typer.Option(min=0, show_default="the likeliest", help="The class to look for.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output",
            dir_okay=False,
            show_default="<file>.explain.png, beside the image",
            help="The file that the picture is saved in.",
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Draw where in an image the network saw a class (Grad-CAM); prints the picture's path, or the map with --json."""
    with connect(server, key) as client:
        if as_json:
            output.as_json(client.explain(file, model=model, class_index=class_index))
            return
        picture, said = client.overlay(file, model=model, class_index=class_index)
    path = target or file.with_name(f"{file.name}.explain.png")  # cat.jpg and cat.png have one each
    save(picture, path, option="--output")
    output.note(
        f"{said['model']} saw {said['label']} ({output.percent(said['probability'])}) where the picture is warm."
    )
    print(path)
