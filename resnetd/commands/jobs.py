"""`resnetd jobs`: look at, watch and cancel jobs."""

import json
from typing import Annotated, Any

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.follow import ended_well, follow, line, print_events
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server

app = typer.Typer(no_args_is_help=True, help="Look at, watch and cancel jobs.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="An id: job_…")]
After = Annotated[str | None, typer.Option(show_default=False, help="Go on behind this one.")]


@app.command("list")
def list_(
    *,
    state: Annotated[str | None, typer.Option(show_default=False, help="Only jobs in this state.")] = None,
    kind: Annotated[str | None, typer.Option(show_default=False, help="Only jobs of this kind: import, train.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    after: After = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The jobs, newest first."""
    with connect(server, key) as client:
        page = client.jobs(limit=limit, after=after, state=state, kind=kind)
    if as_json:
        output.as_json(page)
        return
    rows = [
        (job["id"], job["kind"], job["state"], _fraction(job), output.moment(job["created_at"])) for job in page["data"]
    ]
    output.table(("id", "kind", "state", "progress", "created"), rows)
    output.more(page)


@app.command()
def show(job: JobId, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """One job: its state, progress, metrics, and its result or error."""
    with connect(server, key) as client:
        found = client.job(job)
    if as_json:
        output.as_json(found)
        return
    error = found.get("error") or {}
    output.fields(
        {
            "id": found["id"],
            "kind": found["kind"],
            "state": found["state"],
            "progress": _fraction(found),
            "created": found.get("created_at"),
            "started": found.get("started_at"),
            "finished": found.get("finished_at"),
            "best": _compact((found.get("metrics") or {}).get("best")),
            "latest": _compact((found.get("metrics") or {}).get("latest")),
            **result(found),
            "error": error and f"{error['message']} ({error['code']})",
            "hint": error.get("hint"),
        }
    )


@app.command()
def watch(job: JobId, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """Watch a job until it ends. Ends with status 1 when it does not succeed."""
    with connect(server, key) as client:
        if as_json:
            print_events(client.events(job))
            ended_well(client.job(job))
        else:
            found = follow(client, job)
            output.note(f"{found['id']} {found['state']}")


@app.command()
def cancel(job: JobId, *, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """Cancel a job. Nothing of it is registered."""
    with connect(server, key) as client:
        found = client.cancel(job)
    if as_json:
        output.as_json(found)
    else:
        output.note(f"{found['id']} {found['state']}")


@app.command()
def events(
    job: JobId,
    *,
    after: After = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """The events of a job so far and to come, one a line, until it ends."""
    with connect(server, key) as client:
        stream = client.events(job, after=after)
        if as_json:
            print_events(stream)
            return
        for event in stream:
            text = line(event.type, event.data)
            print("\t".join(part for part in (event.id, event.type, text if text != event.type else "") if part))


def _compact(value: dict[str, Any] | None) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def result(job: dict[str, Any]) -> dict[str, object]:
    """What a job that succeeded made, as fields."""
    made = job.get("result") or {}
    return {name: output.metrics(value) if name == "metrics" else value for name, value in made.items()}


def _fraction(job: dict[str, Any]) -> str:
    if job["state"] == "succeeded":
        return "100%"
    fraction = (job.get("progress") or {}).get("fraction")
    return "" if fraction is None else f"{fraction:.0%}"
