"""`resnetd recipes` and `resnetd architectures`: what a training may ask for."""

import json
from typing import Annotated

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server
from resnetd.errors import Refused


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="RECIPE", show_default="all", help="One recipe's name.")] = None,
    *,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The recipes, with every field that --set may override and its value as --set takes it.

    Of one recipe also which values each field takes, and what it means.
    """
    with connect(server, key) as client:
        page = client.recipes()
        found = [each for each in page["data"] if name in (None, each["name"])]
        if not found:
            names = ", ".join(each["name"] for each in page["data"])
            raise Refused(f"There is no recipe {name}.", f"There are: {names}.")
        about = client.recipe_fields()["data"] if name is not None and not as_json else []
    if as_json:
        output.as_json(page if name is None else found[0])
        return
    if about:
        values = found[0]["fields"]
        rows = [(each["name"], _setting(values[each["name"]]), each["takes"], each["description"]) for each in about]
        output.table(("field", "value", "takes", "meaning"), rows)
        return
    for number, each in enumerate(found):
        print(("\n" if number else "") + each["name"])
        width = max(len(field) for field in each["fields"])
        for field, value in each["fields"].items():
            print(f"  {field:<{width}}  {_setting(value)}")


def _setting(value: object) -> str:
    """A field's value as `--set` takes it: text as it is, all else in JSON, `null` too."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def architectures(*, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """The networks that `--set network=…` may name, with their own image size and their parameters."""
    with connect(server, key) as client:
        page = client.architectures()
    if as_json:
        output.as_json(page)
        return
    rows = [
        (
            each["name"],
            f"{each['image_size']} × {each['image_size']} × {each['channels']}",
            f"{each['parameters']:,}",
            ", ".join(each["weights"]),
            each["description"],
        )
        for each in page["data"]
    ]
    output.table(("name", "input", "parameters", "weights", "description"), rows)
