"""What commands print: tables for people, tab-separated lines for pipes, JSON where it was asked for."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from resnetd.errors import Problem, Refused, Unreachable


def as_json(value: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None), flush=True)


def shown(text: str) -> str:
    """Text of a server as a terminal may have it: what would steer it, or look like another row, is told as an escape.

    Class names and file names come from whoever uploaded them.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def line(*cells: str) -> None:
    """One line of output, tabs between its cells."""
    print("\t".join(map(shown, cells)))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere a line a row, tabs between, no head, nothing cut."""
    texts = [["" if cell is None else shown(str(cell)) for cell in row] for row in rows]
    if not texts:
        return
    if not sys.stdout.isatty():
        for row in texts:
            print("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - a terminal's library, loaded where there is one
    from rich.console import Console  # noqa: PLC0415 - likewise
    from rich.table import Table  # noqa: PLC0415 - likewise

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number == 0, overflow="fold")  # the first is what one copies: whole, one line
    for row in texts:
        drawn.add_row(*(_plain(cell) for cell in row))
    Console(highlight=False).print(drawn)


def fields(pairs: dict[str, object]) -> None:
    """One thing, a line a field; empty fields are left out."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        if value not in (None, "", [], {}):
            line(f"{name:<{width}}  {value}")


def more(page: dict[str, Any]) -> None:
    """Say on standard error that a list goes on."""
    if page.get("has_more"):
        note(f"There are more: --after {page['next']}")


def note(text: str) -> None:
    """For people, beside the output proper."""
    print("\n".join(map(shown, text.split("\n"))), file=sys.stderr, flush=True)


def webhook_secret(job: dict[str, Any]) -> None:
    """Of the answer to a submission, which alone has it."""
    secret = (job.get("webhook") or {}).get("secret")
    if secret:
        note(f"Deliveries are signed with {secret}, which is told this once.")


def process_output(error: dict[str, Any] | None, *, lines: int = 20) -> None:
    """The last that the process of a crashed job wrote, on standard error."""
    log = ((error or {}).get("log") or "").rstrip()
    if log:
        note("The last of what its process wrote:")
        for text in log.splitlines()[-lines:]:
            note(f"  {text}")


def failure(error: Problem | Unreachable | Refused) -> None:
    """An error as title, detail and hint, on standard error."""
    match error:
        case Problem():
            note(f"{error.title} ({error.status}, {error.code})")
            if error.detail:
                note(f"  {error.detail}")
            for wrong in error.errors[1:]:
                note(f"  {wrong.get('pointer', '')}: {wrong.get('detail', '')}")
            if error.hint:
                note(f"  Hint: {error.hint}")
            if error.status >= 500 and error.request_id:
                note(f"  Request id: {error.request_id}")
            if error.status >= 500:
                _key(error)
        case Unreachable():
            note(str(error))
            note("  Hint: start one with `resnetd up`, or name another with --server or RESNETD_SERVER.")
            _key(error)
        case Refused():
            note(error.message)
            if error.hint:
                note(f"  Hint: {error.hint}")


def _key(error: Problem | Unreachable) -> None:
    if error.idempotency_key:
        note(f"  Idempotency-Key: {error.idempotency_key}; the same request again under this key counts once.")


def metrics(values: dict[str, Any] | None) -> str:
    """The measures that a person asks for first; --json has them all."""
    shown = ("top1", "top5", "log_loss", "ece")
    return ", ".join(f"{name} {values[name]:.4f}" for name in shown if values and values.get(name) is not None)


def moment(rfc3339: str) -> str:
    """For lists: to the second, UTC."""
    return rfc3339[:19].replace("T", " ")


def _plain(cell: str) -> str:
    """Text that a server sent is not markup."""
    return cell.replace("[", r"\[")


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
