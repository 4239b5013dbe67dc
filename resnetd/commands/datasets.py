"""`resnetd datasets`: upload, look at, delete."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.follow import follow
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server

if TYPE_CHECKING:
    from resnetd.client import Client

app = typer.Typer(no_args_is_help=True, help="Upload datasets and look at them.")

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="An id: ds_…")]


@app.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    after: Annotated[str | None, typer.Option(show_default=False, help="Go on behind this one.")] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The datasets, newest first."""
    with connect(server, key) as client:
        page = client.datasets(limit=limit, after=after)
    if as_json:
        output.as_json(page)
        return
    rows = [(each["id"], each.get("name"), each.get("status"), _images(each), _classes(each)) for each in page["data"]]
    output.table(("id", "name", "status", "images", "classes"), rows)
    output.more(page)


@app.command()
def show(dataset: DatasetId, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """One dataset: its digest, classes, splits, image sizes, and what its import left out."""
    with connect(server, key) as client:
        found = client.dataset(dataset)
    if as_json:
        output.as_json(found)
    else:
        _show(found)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="zip, tar or IDX.")],
    *,
    name: Annotated[str | None, typer.Option(show_default="the file's name", help="What to call it.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the import and show the dataset.")] = False,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload an archive of images in folders, with a manifest, or IDX files; the server imports it."""
    with connect(server, key) as client:
        answer = _upload(client, file, name)
        if wait:
            output.note(f"Importing {answer['id']} ({answer['job']['id']})")
            follow(client, answer["job"]["id"])
            answer = client.dataset(answer["id"])
    if as_json:
        output.as_json(answer)
    elif wait:
        _show(answer)
    else:
        output.note(f"Importing; watch it with `resnetd jobs watch {answer['job']['id']}`.")
        print(answer["id"])


@app.command()
def delete(dataset: DatasetId, *, server: Server = DEFAULT_SERVER, key: Key = None) -> None:
    """Delete a dataset that no job uses. Models trained on it stay."""
    with connect(server, key) as client:
        client.delete_dataset(dataset)
    output.note(f"Deleted {dataset}.")


def _upload(client: "Client", file: Path, name: str | None) -> dict[str, Any]:
    if not sys.stderr.isatty():
        return client.upload_dataset(file, name=name)
    from rich.console import Console  # noqa: PLC0415 - a terminal's library, loaded where there is one
    from rich.progress import (  # noqa: PLC0415 - likewise
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("Uploading {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(file.name, total=file.stat().st_size)
        return client.upload_dataset(file, name=name, on_bytes=lambda count: progress.advance(task, count))


def _images(dataset: dict[str, Any]) -> object:
    splits = dataset.get("splits") or {}
    return ", ".join(f"{name} {split['images']:,}" for name, split in splits.items())


def _classes(dataset: dict[str, Any]) -> object:
    return len(dataset["classes"]) if dataset.get("classes") else ""


def _show(dataset: dict[str, Any]) -> None:
    image, report = dataset.get("image") or {}, dataset.get("report") or {}
    source = dataset.get("source") or {}
    error = dataset.get("error") or {}
    output.fields(
        {
            "id": dataset["id"],
            "name": dataset.get("name"),
            "status": dataset.get("status"),
            "error": error.get("message"),
            "digest": dataset.get("digest"),
            "format": source.get("format"),
            "images": _images(dataset),
            "classes": ", ".join(dataset.get("classes") or []),
            "sizes": ", ".join(f"{size} ({count:,})" for size, count in (image.get("sizes") or {}).items()),
            "modes": ", ".join(f"{mode} ({count:,})" for mode, count in (image.get("modes") or {}).items()),
        }
    )
    for kind in ("corrupt", "skipped"):
        for entry in report.get(kind) or []:
            print(f"{kind}: {entry['file']}: {entry['reason']}")
        beyond = (report.get("truncated") or {}).get(kind)
        if beyond:
            print(f"{kind}: and {beyond:,} more")
    for warning in report.get("warnings") or []:
        print(f"warning: {warning['message']} ({warning['images']:,} images, such as {warning['example']})")
