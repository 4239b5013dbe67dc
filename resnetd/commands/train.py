"""`resnetd train`: submit a training and watch it."""

from typing import Annotated

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.follow import follow
from resnetd.commands.jobs import result
from resnetd.commands.options import (
    DEFAULT_SERVER,
    FollowedAsJson,
    IdempotencyKey,
    Key,
    MaxSeconds,
    Priority,
    Server,
    Webhook,
    parse_setting,
    terms,
)


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
    priority: Priority = None,
    max_seconds: MaxSeconds = None,
    webhook: Webhook = None,
    idempotency_key: IdempotencyKey = None,
    watch: Annotated[bool, typer.Option("--follow/--no-follow", help="Watch the job until it ends.")] = True,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: FollowedAsJson = False,
) -> None:
    """Train a network on a dataset. Ends with status 1 when the job does not succeed."""
    overrides = dict(parse_setting(text, option="--set ") for text in override or [])
    asked = terms(priority=priority, max_seconds=max_seconds, webhook=webhook, idempotency_key=idempotency_key)
    with connect(server, key) as client:
        job = client.train(
            dataset,
            recipe=recipe,
            overrides=overrides,
            register_as=register_as,
            alias=alias,
            **asked,
        )
        output.webhook_secret(job)
        if watch:
            output.note(f"Training: {job['id']}")
            job = follow(client, job["id"], as_json=as_json)
    if as_json:
        output.as_json(job)
    elif watch:
        output.fields({"job": job["id"], "state": job["state"], **result(job)})
    else:
        output.note(f"Queued; watch it with `resnetd jobs watch {job['id']}`.")
        print(job["id"])
