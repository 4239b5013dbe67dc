"""`resnetd export`: a model as files that need no resnetd."""

from pathlib import Path
from typing import Annotated

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.files import download_all
from resnetd.commands.follow import follow
from resnetd.commands.options import (
    DEFAULT_SERVER,
    FollowedAsJson,
    IdempotencyKey,
    Key,
    MaxSeconds,
    Priority,
    Server,
    Webhook,
    terms,
)


def export(
    model: Annotated[str, typer.Argument(help="name, name@3 or name@alias")],
    *,
    to: Annotated[
        str,
        typer.Option(
            "--format",
            help="bundle: a zip for PyTorch and safetensors alone; torch_export: a program for torch.export.load; "
            "onnx: a model for onnxruntime and others.",
        ),
    ] = "bundle",
    folder: Annotated[Path, typer.Option("--output", help="The folder that the files are saved in.")] = Path(),
    priority: Priority = None,
    max_seconds: MaxSeconds = None,
    webhook: Webhook = None,
    idempotency_key: IdempotencyKey = None,
    watch: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Watch the job until it ends, and download.")
    ] = True,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: FollowedAsJson = False,
) -> None:
    """Write a model as files that need no resnetd, and download them; prints their paths.

    Ends with status 1 when the job does not succeed.
    """
    asked = terms(priority=priority, max_seconds=max_seconds, webhook=webhook, idempotency_key=idempotency_key)
    with connect(server, key) as client:
        job = client.export(model, format=to, **asked)
        output.webhook_secret(job)
        if watch:
            output.note(f"Exporting {job['spec']['model']}: {job['id']}")
            job = follow(client, job["id"], as_json=as_json)
            saved = download_all(client, job["id"], folder)
    if as_json:
        output.as_json(job)
    elif watch:
        for path in saved:
            print(path)
    else:
        output.note(f"Queued; when it has ended: `resnetd jobs download {job['id']}`.")
        print(job["id"])
