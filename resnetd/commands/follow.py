"""Following a job: a progress bar on a terminal, a line an epoch elsewhere, the raw events with --json."""

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from resnetd.commands import output
from resnetd.errors import Refused

if TYPE_CHECKING:
    from resnetd.client import Client
    from resnetd.event_stream import Event


class _Display(Protocol):
    def progress(self, data: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


class _Lines:
    """For logs and pipes: what happened, without what is passing."""

    def progress(self, data: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        output.note(text)


class _Bar:
    """For terminals."""

    def __init__(self, stack: ExitStack) -> None:
        from rich.console import Console  # noqa: PLC0415 - a terminal's library, loaded where there is one
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - likewise

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>5.1f} %"))
        facts = TextColumn("{task.fields[facts]}", markup=False)
        self._progress = stack.enter_context(Progress(*columns, facts, console=Console(stderr=True), transient=True))
        self._task = self._progress.add_task("waiting", total=1.0, facts="")

    def progress(self, data: dict[str, Any]) -> None:
        done = data.get("fraction") or 0.0
        self._progress.update(self._task, completed=done, description=_where(data), facts=_facts(data))

    def say(self, text: str) -> None:
        self._progress.console.print(output.shown(text), markup=False, highlight=False)


def follow(client: "Client", job_id: str, *, as_json: bool = False) -> dict[str, Any]:
    """Show a job until it ends and return it. Raises Refused where it did not succeed.

    With `as_json` its events are printed, and behind them the job where it did not succeed: else the caller's answer is
    the last line. Ctrl-C ends the watching and not the job.
    """
    if as_json:
        print_events(client.events(job_id))
    else:
        _show(client, job_id)
    job = client.job(job_id)
    if as_json and job["state"] != "succeeded":
        output.as_json(job)
    return _ended_well(job)


def _show(client: "Client", job_id: str) -> None:
    with ExitStack() as stack:
        display: _Display = _Bar(stack) if sys.stderr.isatty() else _Lines()
        try:
            for event in client.events(job_id):
                _take(event, display)
        except KeyboardInterrupt:
            display.say(f"The job goes on. Watch it again with `resnetd jobs watch {job_id}`.")
            raise


def _ended_well(job: dict[str, Any]) -> dict[str, Any]:
    """The job itself. Raises Refused where it failed or was cancelled."""
    if job["state"] == "succeeded":
        return job
    error = job.get("error") or {}
    reason = f": {error['message']} ({error['code']})" if error else ""
    output.process_output(error)
    raise Refused(f"{job['id']} {job['state']}{reason}", error.get("hint") or None)


def print_events(events: "Iterable[Event]") -> None:
    """One JSON object a line."""
    import json  # noqa: PLC0415 - keeps the start short

    for event in events:
        at = event.at.isoformat().replace("+00:00", "Z")  # as the server writes moments
        told = {"id": event.id, "type": event.type, "at": at, "data": event.data}
        print(json.dumps(told, ensure_ascii=False), flush=True)


def _take(event: "Event", display: _Display) -> None:
    if event.type == "progress":
        display.progress(event.data)
    else:
        text = line(event.type, event.data)
        if text:
            display.say(text)


#: Events whose type alone is what happened; empty for those that say nothing to a person.
_SAID = {
    "checkpoint": "",
    "failed": "",  # told as the command's own error
    "checkpoint_requested": "a checkpoint is asked for",
    "finish_requested": "finishing: the epoch that `keep` names is kept",
}


def line(kind: str, data: dict[str, Any]) -> str:
    """An event as a sentence; empty for those that say nothing to a person."""
    match kind:
        case "epoch":
            return "  ".join([f"epoch {data['epoch']}", *_measures(data), f"{data.get('seconds', 0):.1f} s"])
        case "evaluation":
            return f"{data.get('split', 'test')}: " + ", ".join(
                f"{name} {_number(data[name])}"
                for name in ("top1", "top5", "log_loss", "ece")
                if data.get(name) is not None
            )
        case "warning" | "log":
            return str(data.get("message", ""))
        case "queued":
            return _queued(data)
        case "settings_changed":
            return "changed: " + ", ".join(f"{name} {value}" for name, value in _changes(data))
        case _:
            return _SAID.get(kind, kind)


def _queued(data: dict[str, Any]) -> str:
    """Why it is in the queue, where that is no matter of course."""
    reason = data.get("reason", "submitted")
    if reason == "crashed":
        error = data.get("error") or {}
        return f"queued again after crash {data.get('crashes', '')}: {error.get('message', '')}".rstrip(": ")
    return "queued" if reason == "submitted" else f"queued ({reason})"


def _changes(data: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    yield from (data.get("settings") or {}).items()
    if data.get("priority"):
        yield "priority", data["priority"]


def _measures(data: dict[str, Any]) -> Iterable[str]:
    for split in ("train", "val"):
        measured = data.get(split) or {}
        if measured.get("loss") is not None:
            yield f"{split} loss {measured['loss']:.4f}"
        if measured.get("top1") is not None:
            yield f"{split} top-1 {measured['top1']:.2%}"


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value}"


def _where(data: dict[str, Any]) -> str:
    phase = str(data.get("phase") or "")
    if data.get("epochs"):
        return f"{phase}  epoch {data.get('epoch')}/{data['epochs']}  step {data.get('step')}/{data.get('steps')}"
    if data.get("total"):
        return f"{phase}  {data.get('done', 0):,}/{data['total']:,}"
    return phase


def _facts(data: dict[str, Any]) -> str:
    facts = []
    if data.get("loss") is not None:
        facts.append(f"loss {data['loss']:.4f}")
    if data.get("images_per_second"):
        facts.append(f"{data['images_per_second']:,.0f} images/s")
    if data.get("eta_seconds") is not None:
        minutes, seconds = divmod(round(data["eta_seconds"]), 60)
        facts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(facts)
