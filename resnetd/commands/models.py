"""`resnetd models`: what is served, and where it came from."""

from typing import Annotated

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server

app = typer.Typer(no_args_is_help=True, help="Look at models, point aliases.")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]


@app.command("list")
def list_(*, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """The models."""
    with connect(server, key) as client:
        page = client.models()
    if as_json:
        output.as_json(page)
        return
    rows = [(model["name"], model["latest"], model["version_count"], _aliases(model)) for model in page["data"]]
    output.table(("name", "latest", "versions", "aliases"), rows)
    output.more(page)


@app.command()
def show(model: ModelName, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """One model: its versions, each with network, metrics, weights and where it came from."""
    with connect(server, key) as client:
        found = client.model(model)
    if as_json:
        output.as_json(found)
        return
    output.fields({"name": found["name"], "aliases": _aliases(found)})
    for version in found["versions"]:
        lineage = version.get("lineage") or {}
        print()
        output.fields(
            {
                "version": version["version"],
                "network": f"{version['network']['name']} ({version['parameters']:,} parameters)",
                "classes": ", ".join(version["classes"]),
                "metrics": output.metrics(version.get("metrics")),
                "weights": version["weights_sha256"],
                "job": lineage.get("job"),
                "dataset": " ".join(str(lineage[part]) for part in ("dataset", "dataset_digest") if lineage.get(part)),
                "recipe": lineage.get("recipe"),
                "created": lineage.get("created_at"),
            }
        )


@app.command()
def alias(
    model: ModelName,
    alias: Annotated[str, typer.Argument(help="Such as production.")],
    version: Annotated[int, typer.Argument(min=1, help="The version that it shall point to.")],
    *,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a version. The old version serves until the new one is ready."""
    with connect(server, key) as client:
        found = client.set_alias(model, alias, version)
    if as_json:
        output.as_json(found)
    else:
        output.note(f"{model}@{alias} is version {version}.")


def _aliases(model: dict[str, object]) -> str:
    aliases = model.get("aliases")
    return ", ".join(f"{name} → {version}" for name, version in aliases.items()) if isinstance(aliases, dict) else ""
