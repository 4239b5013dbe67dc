"""`resnetd train`: submit a training and watch it."""

import json
from typing import Annotated, Any

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.follow import ended_well, follow, print_events
from resnetd.commands.jobs import result
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server
from resnetd.errors import Refused


def parse_override(text: str) -> tuple[str, Any]:
    """`epochs=2` → ("epochs", 2); a value that is no JSON is a string. Raises Refused."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Refused(f"--set {text}: this is not KEY=VALUE.", "For instance: --set epochs=2 --set precision=fp32")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def train(
    dataset: Annotated[str, typer.Argument(help="The id of an imported dataset: ds_…")],
    *,
    recipe: Annotated[str, typer.Option(help="A recipe's name; `resnetd recipes` lists them.")],
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe; repeatable.")
    ] = None,
    register_as: Annotated[
        str | None, typer.Option(show_default=False, help="Register the result as the next version of this model.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option(show_default=False, help="Point this alias to the new version, such as production.")
    ] = None,
    watch: Annotated[bool, typer.Option("--follow/--no-follow", help="Watch the job until it ends.")] = True,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Train a network on a dataset. Ends with status 1 when the job does not succeed."""
    overrides = dict(parse_override(text) for text in override or [])
    with connect(server, key) as client:
        job = client.train(dataset, recipe=recipe, overrides=overrides, register_as=register_as, alias=alias)
        if watch:
            output.note(f"Training: {job['id']}")
            if as_json:
                print_events(client.events(job["id"]))
                ended_well(client.job(job["id"]))
                return
            job = follow(client, job["id"])
    if as_json:
        output.as_json(job)
    elif watch:
        output.fields({"job": job["id"], "state": job["state"], **result(job)})
    else:
        output.note(f"Queued; watch it with `resnetd jobs watch {job['id']}`.")
        print(job["id"])


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
