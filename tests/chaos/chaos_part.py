"""`python chaos_part.py worker|app …`: the product's own program, with the toy trainer for its jobs.

`CHAOS_LEASE_MS` shortens the lease, `CHAOS_SPILL` the stream of a live job; `CHAOS_CALLS` names a file to which every
call of a held claim is noted with the ledger's answer. Nothing else differs.
"""

import functools
import os
import sys
from pathlib import Path
from typing import Any

from history import append, now

from jobs import archive, ledger, reconciler, scripts
from jobs.model import Kind

#: The scripts whose second argument is the claim that calls.
FENCED = {"renew", "orders", "emit", "publishing", "settle", "release"}


def shorten_lease(milliseconds: int) -> None:
    """Before anything of the worker is imported."""
    for module in (ledger, reconciler):
        vars(module)["LEASE_MS"] = milliseconds
    ledger.RENEW_SECONDS = milliseconds / 6000


def shorten_streams(events: int) -> None:
    scripts.LONG_STREAM = events  # no script is loaded yet
    archive.spill = functools.partial(archive.spill, keep=events // 2)


def note_calls(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    run = ledger.Ledger._run

    def noted(self: Any, name: str, *args: Any) -> Any:
        answer = run(self, name, *args)
        if name in FENCED:
            lost = (answer[0] if isinstance(answer, list) else answer) == "lost"
            append(fd, {"t": now(), "pid": os.getpid(), "call": name, "job": args[0], "claim": args[1], "lost": lost})
        return answer

    ledger.Ledger._run = noted  # type: ignore[method-assign]  # an observer, for this process only


def main() -> None:
    part = sys.argv.pop(1)
    if lease := os.environ.get("CHAOS_LEASE_MS"):
        shorten_lease(int(lease))
    if spill := os.environ.get("CHAOS_SPILL"):
        shorten_streams(int(spill))
    # What follows is imported late: it copies the constants that were shortened.
    if part == "app":
        from app.__main__ import main as serve  # noqa: PLC0415 - see above

        sys.exit(serve())
    if calls := os.environ.get("CHAOS_CALLS"):
        note_calls(Path(calls))
    from worker import child  # noqa: PLC0415 - see above
    from worker.__main__ import main as work  # noqa: PLC0415 - see above

    child.PROGRAMS[Kind.TRAIN] = "toy_trainer"
    work()


if __name__ == "__main__":
    main()
