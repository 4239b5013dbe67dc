"""`resnetd models alias` and its like: which version of a model answers to a name."""

from typing import Annotated, Any

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server
from resnetd.errors import Refused

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]
AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="Such as production.")]
IfMatch = Annotated[
    str | None,
    typer.Option("--if-match", show_default="any", help="Only where the aliases have this ETag (models aliases)."),
]


def alias(
    model: ModelName,
    alias: AliasName,
    version: Annotated[int, typer.Argument(min=1, help="The version that it shall point to.")],
    *,
    canary: Annotated[
        str | None,
        typer.Option(metavar="VERSION:PERCENT", show_default="none", help="Answers so many percent of the requests."),
    ] = None,
    shadow: Annotated[
        int | None,
        typer.Option(min=1, show_default="none", help="A version that gets a copy of each classification of files."),
    ] = None,
    if_match: IfMatch = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a version. The old version serves until the new one is ready."""
    share = None if canary is None else _share(canary)
    with connect(server, key) as client:
        found = client.set_alias(model, alias, version, canary=share, shadow=shadow, if_match=if_match)
    if as_json:
        output.as_json(found)
    else:
        output.note(_told(found))


def unalias(
    model: ModelName, alias: AliasName, *, if_match: IfMatch = None, server: Server = DEFAULT_SERVER, key: Key = None
) -> None:
    """Delete an alias. Its versions stay; without a `production` the newest version answers."""
    with connect(server, key) as client:
        client.delete_alias(model, alias, if_match=if_match)
    output.note(f"{model} has no alias {alias} any more.")


def aliases(model: ModelName, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """A model's aliases: their canaries, shadows, what they pointed to before, and their ETag."""
    with connect(server, key) as client:
        found, etag = client.aliases(model)
    if as_json:
        output.as_json({**found, "etag": etag})
        return
    rows = []
    for alias, each in found["aliases"].items():
        canary, shadow = each["canary"] or {}, each["shadow"] or {}
        share = f"{canary['version']} ({canary['percent']:g} %)" if canary else ""
        before = ", ".join(str(past["version"]) for past in reversed(each["history"]))
        rows.append((alias, each["version"], share, shadow.get("version", ""), before))
    output.table(("alias", "version", "canary", "shadow", "before"), rows)
    output.note(f"ETag: {etag}")


def rollback(
    model: ModelName,
    alias: AliasName,
    *,
    if_match: IfMatch = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to the version before this one; again, it goes further back."""
    with connect(server, key) as client:
        found = client.roll_back(model, alias, if_match=if_match)
    if as_json:
        output.as_json(found)
    else:
        output.note(_told(found))


def _told(found: dict[str, Any]) -> str:
    canary, shadow = found["canary"], found["shadow"]
    share = f", version {canary['version']} answers {canary['percent']:g} %" if canary else ""
    copies = f", version {shadow['version']} gets copies" if shadow else ""
    return f"{found['model']}@{found['alias']} is version {found['version']}{share}{copies}."


def _share(text: str) -> tuple[int, float]:
    """`4:10` → (4, 10.0). Raises Refused."""
    version, _, percent = text.partition(":")
    try:
        return int(version), float(percent)
    except ValueError as error:
        raise Refused(f"--canary {text}: this is not VERSION:PERCENT.", "For instance: --canary 4:10") from error
