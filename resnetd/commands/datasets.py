"""`resnetd datasets`: upload, look at, delete."""

from pathlib import Path
from typing import Annotated, Any

import typer

from resnetd.commands import bars, output
from resnetd.commands.connection import connect
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
    Wait,
)

app = typer.Typer(no_args_is_help=True, help="Upload, look at and delete datasets.")

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="An id: ds_…")]


@app.command("list")
def list_(
    *,
    name: Annotated[str | None, typer.Option(show_default=False, help="Only those that are called so.")] = None,
    status: Annotated[
        str | None,
        typer.Option(show_default=False, help="Only these, commas between: importing, ready, failed, cancelled."),
    ] = None,
    limit: Limit = None,
    after: After = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The datasets, newest first."""
    with connect(server, key) as client:
        page = client.datasets(limit=limit, after=after, name=name, status=status)
    if as_json:
        output.as_json(page)
        return
    rows = [(each["id"], each.get("name"), each.get("status"), _images(each), _classes(each)) for each in page["data"]]
    output.table(("id", "name", "status", "images", "classes"), rows)
    output.more(page)


@app.command()
def show(
    dataset: DatasetId,
    *,
    wait: Wait = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """One dataset: its digest, classes, splits, image sizes, and what its import left out."""
    with connect(server, key) as client:
        found = client.dataset(dataset, wait=wait)
    if as_json:
        output.as_json(found)
    else:
        _show(found)


@app.command()
def upload(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, readable=True, help="One zip or tar, or all the IDX files."),
    ],
    *,
    name: Annotated[
        str | None, typer.Option(show_default="like the file; several: like their folder", help="What to call it.")
    ] = None,
    priority: Priority = None,
    max_seconds: MaxSeconds = None,
    idempotency_key: IdempotencyKey = None,
    watch: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Watch the import until it ends, and show the dataset.")
    ] = True,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: FollowedAsJson = False,
) -> None:
    """Upload an archive of images in folders or with a manifest, or IDX files; the server imports it.

    Ends with status 1 when the import does not succeed.
    """
    title = f"Uploading {files[0].name}" if len(files) == 1 else f"Uploading {len(files)} files"
    with connect(server, key) as client:
        with bars.of_bytes(title, sum(file.stat().st_size for file in files), quiet=as_json) as on_bytes:
            answer = client.upload_dataset(
                files,
                name=name,
                priority=priority,
                max_seconds=max_seconds,
                idempotency_key=idempotency_key,
                on_bytes=on_bytes,
            )
        if watch:
            output.note(f"Importing {answer['id']}: {answer['job']['id']}")
            follow(client, answer["job"]["id"], as_json=as_json)
            answer = client.dataset(answer["id"])
    if as_json:
        output.as_json(answer)
    elif watch:
        _show(answer)
    else:
        output.note(f"Queued; watch it with `resnetd jobs watch {answer['job']['id']}`.")
        print(answer["id"])


@app.command()
def delete(dataset: DatasetId, *, server: Server = DEFAULT_SERVER, key: Key = None) -> None:
    """Delete a dataset that no job uses. Models trained on it stay."""
    with connect(server, key) as client:
        client.delete_dataset(dataset)
    output.note(f"Deleted {dataset}.")


def _images(dataset: dict[str, Any]) -> object:
    splits = dataset.get("splits") or {}
    return ", ".join(f"{name} {split['images']:,}" for name, split in splits.items())


def _classes(dataset: dict[str, Any]) -> object:
    return len(dataset["classes"]) if dataset.get("classes") else ""


def _show(dataset: dict[str, Any]) -> None:
    image, report = dataset.get("image") or {}, dataset.get("report") or {}
    source = dataset.get("source") or {}
    error = dataset.get("error") or {}
    output.fields(
        {
            "id": dataset["id"],
            "name": dataset.get("name"),
            "status": dataset.get("status"),
            "error": error.get("message"),
            "digest": dataset.get("digest"),
            "format": source.get("format"),
            "images": _images(dataset),
            "classes": ", ".join(dataset.get("classes") or []),
            "sizes": ", ".join(f"{size} ({count:,})" for size, count in (image.get("sizes") or {}).items()),
            "modes": ", ".join(f"{mode} ({count:,})" for mode, count in (image.get("modes") or {}).items()),
        }
    )
    for kind in ("corrupt", "skipped"):
        for entry in report.get(kind) or []:
            output.line(f"{kind}: {entry['file']}: {entry['reason']}")
        beyond = (report.get("truncated") or {}).get(kind)
        if beyond:
            print(f"{kind}: and {beyond:,} more")
    for warning in report.get("warnings") or []:
        output.line(f"warning: {warning['message']} ({warning['images']:,} images, such as {warning['example']})")
