"""`resnetd models`: looked at, imported, aliased, loaded, downloaded, deleted."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from resnetd.commands import aliases, bars, output
from resnetd.commands.connection import connect
from resnetd.commands.files import writing_to
from resnetd.commands.follow import follow
from resnetd.commands.options import (
    DEFAULT_SERVER,
    After,
    AsJson,
    FollowedAsJson,
    IdempotencyKey,
    Key,
    Limit,
    MaxSeconds,
    Priority,
    Server,
)
from resnetd.errors import Refused

app = typer.Typer(no_args_is_help=True, help="Look at models, import, alias, load, download and delete them.")

ModelRef = Annotated[str, typer.Argument(metavar="MODEL", help="name, name@3 or name@alias")]
ModelVersion = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="Such as fashion@3.")]


@app.command("list")
def list_(
    *,
    limit: Limit = None,
    after: After = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The models, by name."""
    with connect(server, key) as client:
        page = client.models(limit=limit, after=after)
    if as_json:
        output.as_json(page)
        return
    rows = [(model["name"], model["latest"], model["version_count"], _aliases(model)) for model in page["data"]]
    output.table(("name", "latest", "versions", "aliases"), rows)
    output.more(page)


@app.command()
def show(model: ModelRef, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """One model: its versions, each with network, metrics, weights and where it came from; and what is loaded."""
    with connect(server, key) as client:
        found = client.model(model)
    if as_json:
        output.as_json(found)
        return
    loaded = {each["version"]: each["state"] for each in found.get("loaded", [])}
    output.fields({"name": found["name"], "aliases": _aliases(found)})
    for version in found["versions"]:
        lineage = version.get("lineage") or {}
        origin = lineage.get("origin") or {}
        print()
        output.fields(
            {
                "version": version["version"],
                "engine": loaded.get(version["version"]),
                "network": f"{version['network']['name']} ({version['parameters']:,} parameters)",
                "classes": ", ".join(version["classes"]),
                "test-time flip": "yes: the mean over an image and its mirror image"
                if version["test_time_flip"]
                else None,
                "metrics": output.metrics(version.get("metrics")),
                "weights": version["weights_sha256"],
                "job": lineage.get("job"),
                "adopted from": origin.get("filename") or origin.get("format"),
                "dataset": " ".join(str(lineage[part]) for part in ("dataset", "dataset_digest") if lineage.get(part)),
                "recipe": lineage.get("recipe"),
                "created": lineage.get("created_at"),
            }
        )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help=".safetensors, .pth, .zip")],
    name: Annotated[str, typer.Option(help="The model that it becomes a version of.")],
    *,
    network: Annotated[str | None, typer.Option(show_default="told by the tensors", help="A name of the list.")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, show_default="none", help="A file: a name a line, or a JSON list."),
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(show_default="the family's", help='JSON, such as {"resize": 232}.')
    ] = None,
    alias: Annotated[str | None, typer.Option(show_default="none", help="An alias that then points to it.")] = None,
    priority: Priority = None,
    max_seconds: MaxSeconds = None,
    idempotency_key: IdempotencyKey = None,
    watch: Annotated[bool, typer.Option("--follow/--no-follow", help="Watch the job until it ends.")] = True,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: FollowedAsJson = False,
) -> None:
    """Import a residual network that was trained elsewhere: a state dict, or a bundle of `resnetd export`.

    Ends with status 1 when the job does not succeed.
    """
    with connect(server, key) as client:
        with bars.of_bytes(f"Uploading {file.name}", file.stat().st_size, quiet=as_json) as on_bytes:
            job = client.import_model(
                file,
                name,
                network=network,
                classes=None if classes is None else _names(classes),
                preprocessing=None if preprocessing is None else _object(preprocessing),
                alias=alias,
                priority=priority,
                max_seconds=max_seconds,
                idempotency_key=idempotency_key,
                on_bytes=on_bytes,
            )
        if watch:
            output.note(f"Importing {file.name} as {name}: {job['id']}")
            job = follow(client, job["id"], as_json=as_json)
    if as_json:
        output.as_json(job)
    elif watch:
        print(f"{name}@{job['result']['version']}")
    else:
        output.note(f"Queued; watch it with `resnetd jobs watch {job['id']}`.")
        print(job["id"])


for each in (aliases.alias, aliases.unalias, aliases.aliases, aliases.rollback):
    app.command()(each)


@app.command()
def load(model: ModelRef, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """Load a version, and wait until it is ready."""
    with connect(server, key) as client:
        found = client.load_model(model)
    if as_json:
        output.as_json(found)
    else:
        output.note(f"{found['model']}@{found['version']} is ready on {found['device']}.")


@app.command()
def unload(model: ModelRef, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """Unload a version: its engine ends, which frees its memory."""
    with connect(server, key) as client:
        found = client.unload_model(model)
    if as_json:
        output.as_json(found)
    else:
        output.note(f"{found['model']}@{found['version']} is unloaded.")


@app.command()
def card(model: ModelRef, *, server: Server = DEFAULT_SERVER, key: Key = None) -> None:
    """A model in words, as Markdown: what it is, how good it is, where it came from."""
    with connect(server, key) as client:
        for text in client.card(model).split("\n"):
            output.line(text)


@app.command()
def download(
    model: ModelVersion,
    *,
    to: Annotated[str, typer.Option("--format", help="bundle: all of it as a zip; weights: safetensors.")] = "bundle",
    folder: Annotated[Path, typer.Option("--output", help="The folder that it is saved in.")] = Path(),
    server: Server = DEFAULT_SERVER,
    key: Key = None,
) -> None:
    """Download a version; prints the file's path."""
    name, version = _version(model)
    target = folder / f"{name}-{version}.{'zip' if to == 'bundle' else 'safetensors'}"
    with connect(server, key) as client, writing_to(folder):
        client.download_model(name, version, target, form=to)
    print(target)


@app.command()
def delete(model: ModelVersion, *, server: Server = DEFAULT_SERVER, key: Key = None) -> None:
    """Delete a version that no alias needs and no engine has. Its job stays."""
    name, version = _version(model)
    with connect(server, key) as client:
        client.delete_version(name, version)
    output.note(f"Deleted {model}.")


def _aliases(model: dict[str, object]) -> str:
    aliases = model.get("aliases")
    return ", ".join(f"{name} → {version}" for name, version in aliases.items()) if isinstance(aliases, dict) else ""


def _version(text: str) -> tuple[str, int]:
    """`fashion@3` → ("fashion", 3). Raises Refused."""
    name, _, version = text.partition("@")
    if not name or not version.isdecimal():
        raise Refused(f"{text}: this is not MODEL@VERSION.", "For instance: fashion@3")
    return name, int(version)


def _names(file: Path) -> list[str]:
    """Classes from a JSON list, or one a line. Raises Refused."""
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        if text.startswith("["):
            return [str(name) for name in json.loads(text)]
    except ValueError as error:
        hint = 'Write a name a line, or a list such as ["cat", "dog"].'
        raise Refused(f"--classes {file}: this is neither text nor a JSON list.", hint) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Refused(f"--preprocessing {text}: this is not JSON.", 'For instance: {"resize": 232}') from error
    if not isinstance(found, dict):
        raise Refused(f"--preprocessing {text}: this is no JSON object.", 'For instance: {"resize": 232}')
    return found
