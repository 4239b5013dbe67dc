"""`resnetd keys`: API keys.

These commands work on the data directory itself, so that the first key can be created before a server runs.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resnetd.commands import output
from resnetd.commands.options import Data
from resnetd.errors import Refused

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys of a data directory.")

DATA = Path("var")


class ScopeName(StrEnum):
    PREDICT = "predict"
    TRAIN = "train"
    METRICS = "metrics"
    ADMIN = "admin"


@app.command()
def create(
    *,
    scope: Annotated[
        ScopeName,
        typer.Option(
            help="predict: classify; train: and datasets, jobs, aliases; metrics: /metrics alone; admin: everything."
        ),
    ],
    name: Annotated[str, typer.Option(help="Whose key it is, for the list.")] = "",
    data: Data = DATA,
) -> None:
    """Create a key and print its secret, which is shown this once."""
    from store.keys import create_key  # noqa: PLC0415 - keeps the start short
    from store.layout import Layout  # noqa: PLC0415 - likewise

    try:
        secret = create_key(Layout(data).create(), scope.value, name)
    except OSError as error:
        raise Refused(f"The data directory {data} cannot be used: {error.strerror}.", "Set RESNETD_DATA.") from error
    output.note("The key is shown this once; only its hash is stored. Send it as `Authorization: Bearer <key>`:")
    print(secret)


@app.command("list")
def list_(*, data: Data = DATA, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """The keys, without their secrets."""
    from store.keys import list_keys  # noqa: PLC0415 - keeps the start short
    from store.layout import Layout  # noqa: PLC0415 - likewise

    keys = list_keys(Layout(data))
    if as_json:
        shown = ("id", "scope", "name", "created_at")
        output.as_json({"data": [{name: getattr(key, name) for name in shown} for key in keys]})
    else:
        output.table(("id", "scope", "name", "created"), [(k.id, k.scope, k.name, k.created_at) for k in keys])


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id from `resnetd keys list`.")], *, data: Data = DATA
) -> None:
    """Revoke a key: it is invalid at once, also for a running server."""
    from store.keys import revoke_key  # noqa: PLC0415 - keeps the start short
    from store.layout import Layout  # noqa: PLC0415 - likewise

    if not revoke_key(Layout(data), key_id):
        raise Refused(f"There is no key {key_id}.", "`resnetd keys list` shows the ids.")
    output.note(f"Revoked {key_id}.")
