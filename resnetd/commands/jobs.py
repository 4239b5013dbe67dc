"""`resnetd jobs`: look at jobs, watch them, and tell them what to do."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.files import download_all
from resnetd.commands.follow import follow, line, print_events
from resnetd.commands.options import (
    DEFAULT_SERVER,
    After,
    AsJson,
    FollowedAsJson,
    IdempotencyKey,
    Key,
    Limit,
    Server,
    Wait,
    parse_setting,
)

app = typer.Typer(no_args_is_help=True, help="Look at jobs, watch them, and tell them what to do.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="An id: job_…")]


@app.command("list")
def list_(
    *,
    state: Annotated[
        str | None, typer.Option(show_default=False, help="Only jobs in these states, commas between: queued,running.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(show_default=False, help="Only of this kind: import, train, evaluate, export, adopt.")
    ] = None,
    priority: Annotated[str | None, typer.Option(show_default=False, help="Only these: high, normal, low.")] = None,
    dataset: Annotated[
        str | None, typer.Option(show_default=False, help="Only jobs that import or read this dataset: ds_…")
    ] = None,
    model: Annotated[
        str | None, typer.Option(show_default=False, help="Only jobs that make, measure or export it: name or name@3.")
    ] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Every job that has ended, however long ago.")] = False,
    limit: Limit = None,
    after: After = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The jobs, newest first."""
    with connect(server, key) as client:
        page = client.jobs(
            limit=limit,
            after=after,
            state=state,
            kind=kind,
            priority=priority,
            dataset=dataset,
            model=model,
            archived=archived,
        )
    if as_json:
        output.as_json(page)
        return
    rows = [
        (job["id"], job["kind"], job["state"], _fraction(job), output.moment(job["created_at"])) for job in page["data"]
    ]
    output.table(("id", "kind", "state", "progress", "created"), rows)
    output.more(page)


@app.command()
def show(
    job: JobId,
    *,
    wait: Wait = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """One job: its state, progress, metrics, and its result or error."""
    with connect(server, key) as client:
        found = client.job(job, wait=wait)
    if as_json:
        output.as_json(found)
        return
    error, hook = found.get("error") or {}, found.get("webhook") or {}
    output.fields(
        {
            "id": found["id"],
            "kind": found["kind"],
            "state": found["state"],
            "priority": found["priority"],
            "queue": found["queue"] and f"place {found['queue']['position']}",
            "progress": _fraction(found),
            "settings": _compact(found["settings"]),
            "created": found.get("created_at"),
            "started": found.get("started_at"),
            "finished": found.get("finished_at"),
            "seconds": round(found["seconds"], 1) or None,
            "attempts": found["attempts"] or None,
            "crashes": found["crashes"] or None,
            "retry of": found["retry_of"],
            "retried as": found["retried_as"],
            "webhook": hook and f"{hook['url']} ({', '.join(hook['events'])})",
            "best": _compact((found.get("metrics") or {}).get("best")),
            "latest": _compact((found.get("metrics") or {}).get("latest")),
            **result(found),
            "error": error and f"{error['message']} ({error['code']})",
            "hint": error.get("hint"),
        }
    )
    output.process_output(error)


@app.command()
def watch(job: JobId, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: FollowedAsJson = False) -> None:
    """Watch a job until it ends. Ends with status 1 when it does not succeed."""
    with connect(server, key) as client:
        found = follow(client, job, as_json=as_json)
    if as_json:
        output.as_json(found)
    else:
        output.note(f"{found['id']} {found['state']}")


def _verb(name: str, text: str) -> None:
    """Add the command that posts a verb."""

    def command(
        job: JobId,
        *,
        idempotency_key: IdempotencyKey = None,
        server: Server = DEFAULT_SERVER,
        key: Key = None,
        as_json: AsJson = False,
    ) -> None:
        with connect(server, key) as client:
            found = getattr(client, name)(job, idempotency_key=idempotency_key)
        _told(found, as_json=as_json)
        if name == "retry" and not as_json:
            print(found["id"])

    app.command(name, help=text)(command)


_VERBS = {
    "cancel": "Cancel a job. Nothing of it is registered.",
    "pause": "Pause a job: out of the queue, or stopped with a checkpoint.",
    "resume": "Resume a paused job; it goes on from its last checkpoint.",
    "finish": "Stop a training here and keep the epoch that its recipe's `keep` names.",
    "checkpoint": "Have a training write a checkpoint now.",
    "retry": "Retry a job that failed or was cancelled, as a new one; prints its id.",
}
for _name, _text in _VERBS.items():
    _verb(_name, _text)


@app.command("set")
def set_(
    job: JobId,
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="lr, epochs, patience or priority.")],
    *,
    idempotency_key: IdempotencyKey = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change a job under way: `resnetd jobs set job_8d3f21aa lr=0.01 priority=high`."""
    values = dict(parse_setting(text) for text in changes)
    with connect(server, key) as client:
        _told(client.change(job, values, idempotency_key=idempotency_key), as_json=as_json)


@app.command()
def delete(job: JobId, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """Delete an ended job with its history and its files; not while its model or its dataset is there."""
    with connect(server, key) as client:
        client.delete_job(job)
    if as_json:
        output.as_json({"id": job, "deleted": True})
    else:
        output.note(f"{job} deleted")


@app.command()
def download(
    job: JobId,
    *,
    folder: Annotated[Path, typer.Option("--output", help="The folder that they are saved in.")] = Path(),
    server: Server = DEFAULT_SERVER,
    key: Key = None,
) -> None:
    """Download the files that a training, an evaluation or an export made; prints their paths."""
    with connect(server, key) as client:
        for path in download_all(client, job, folder):
            print(path)


def _told(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(job)
        return
    place = f", place {job['queue']['position']} in the queue" if job["queue"] else ""
    output.note(f"{job['id']} {job['state']}{place}")


@app.command()
def events(
    job: JobId,
    *,
    after: After = None,
    going_on: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until the job ends.")] = True,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The events of a job so far and to come, one a line, until it ends."""
    with connect(server, key) as client:
        stream = client.events(job, after=after) if going_on else client.history(job, after=after)
        if as_json:
            print_events(stream)
            return
        for event in stream:
            text = line(event.type, event.data)
            output.line(*(part for part in (event.id, event.type, text if text != event.type else "") if part))


@app.command()
def deliveries(
    job: JobId,
    *,
    redeliver: Annotated[
        str | None, typer.Option(metavar="DELIVERY", show_default=False, help="Send this one again, now.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """How the deliveries of a job's webhook went, newest attempt first; what is still to come on standard error."""
    with connect(server, key) as client:
        found = client.redeliver(job, redeliver) if redeliver else client.deliveries(job)
    if as_json:
        output.as_json(found)
        return
    columns = ("delivery", "type", "attempt", "at", "outcome", "answer", "ms")
    rows = [
        (*(each[name] for name in columns[:3]), output.moment(each["at"]), each["outcome"], _answer(each), each["ms"])
        for each in found["data"]
    ]
    output.table(columns, rows)
    for each in found["pending"]:
        output.note(f"{each['delivery']} is due at {output.moment(each['due_at'])}")


def _answer(attempt: dict[str, Any]) -> object:
    return attempt["error"] if attempt["status"] is None else attempt["status"]


def _compact(value: dict[str, Any] | None) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def result(job: dict[str, Any]) -> dict[str, object]:
    """What a job that succeeded made, as fields."""
    made = job.get("result") or {}
    return {name: _shown(name, value) for name, value in made.items()}


def _shown(name: str, value: Any) -> object:  # noqa: ANN401 - anything that JSON can hold
    match name:
        case "metrics":
            return output.metrics(value)
        case "artifacts":
            return ", ".join(each["name"] for each in value)
        case _:
            return value


def _fraction(job: dict[str, Any]) -> str:
    if job["state"] == "succeeded":
        return "100%"
    fraction = (job.get("progress") or {}).get("fraction")
    return "" if fraction is None else f"{fraction:.0%}"
