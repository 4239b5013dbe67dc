"""`resnetd recipes` and `resnetd architectures`: what a training may ask for."""

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server


def recipes(*, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """The recipes, with every field that --set may override."""
    with connect(server, key) as client:
        page = client.recipes()
    if as_json:
        output.as_json(page)
        return
    for number, each in enumerate(page["data"]):
        print(("\n" if number else "") + each["name"])
        output.fields({f"  {name}": value for name, value in each["fields"].items()})


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
