"""`resnetd evaluate`: how good is a model on this dataset?"""

from pathlib import Path
from typing import Annotated, Any

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

_CALIBRATED = ("log_loss", "brier", "ece")
_ORIGIN = {
    "val": ", fitted on val now; the model has none and serves at 1",
    "train": ", fitted on some of train now; the model has none and serves at 1",
    None: ", for want of another split to fit one on",
}


def evaluate(
    model: Annotated[str, typer.Argument(help="name, name@3 or name@alias")],
    dataset: Annotated[str, typer.Argument(help="The id of an imported dataset: ds_…")],
    *,
    split: Annotated[str, typer.Option(help="The dataset's split.")] = "test",
    folder: Annotated[
        Path | None,
        typer.Option("--output", show_default="none", help="The folder that the report and its drawings are saved in."),
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
    """Measure a model on a dataset whose classes are among the model's, by name.

    Ends with status 1 when the job does not succeed.
    """
    asked = terms(priority=priority, max_seconds=max_seconds, webhook=webhook, idempotency_key=idempotency_key)
    with connect(server, key) as client:
        job = client.evaluate(model, dataset, split=split, **asked)
        output.webhook_secret(job)
        if watch:
            output.note(f"Evaluating {job['spec']['model']}: {job['id']}")
            job = follow(client, job["id"], as_json=as_json)
            if folder is not None:
                for path in download_all(client, job["id"], folder):
                    output.note(f"Saved {path}")
    if as_json:
        output.as_json(job)
    elif watch:
        show(job)
    else:
        output.note(f"Queued; watch it with `resnetd jobs watch {job['id']}`.")
        print(job["id"])


def show(job: dict[str, Any]) -> None:
    """An evaluation's figures, then those of each class that the split has images of."""
    made = job["result"]
    figures = made["metrics"]
    output.fields(
        {
            "job": job["id"],
            "model": f"{made['model']}@{made['version']}",
            "dataset": f"{made['dataset']}, {made['split']}",
            "images": figures["total"],
            "top1": output.percent(figures["top1"]),
            "top5": output.percent(figures["top5"]),
            **{name: f"{figures[name]:.4f} ({figures[f'{name}_uncalibrated']:.4f} at T=1)" for name in _CALIBRATED},
            "temperature": f"{figures['temperature']}{_ORIGIN.get(figures['temperature_from'], '')}",
            "images/s": figures["images_per_second"],
        }
    )
    rows = [
        (each["label"], f"{each['precision']:.4f}", f"{each['recall']:.4f}", f"{each['f1']:.4f}", each["support"])
        for each in figures["per_class"]
        if each["support"]
    ]
    print()
    output.table(("class", "precision", "recall", "F1", "images"), rows)
