"""`python tests/chaos/table.py [--write]`: the figures of docs/reliability.md, out of the records of the last runs."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RECORDS = ROOT / "benchmarks" / "records"
_BEGIN, _END = "<!-- figures: tests/chaos/table.py -->", "<!-- end of figures -->"

#: What of a scenario's figures is worth a reader's time, in order; samples show median, 99th percentile, maximum.
SHOWN: dict[str, tuple[str, ...]] = {
    "faults": ("faults", "jobs", "fenced_calls_refused"),
    "kills": (
        "kills_trainer",
        "kills_pool",
        "kills_worker",
        "kills_api",
        "kills_redis",
        "jobs",
        "error_crash_loop",
        "recovery_s",
    ),
    "redis_restarts": ("redis_kills", "jobs", "canary_s"),
    "redis_pauses": ("redis_pauses", "canary_s", "refusal_s"),
    "half_open": ("half_open_api", "half_open_worker", "half_open_client", "canary_s", "refusal_s"),
    "lost_replies": ("replies_lost", "jobs"),
    "ack_then_kill": ("redis_kills", "jobs", "lost"),
    "outage": ("outage_s", "steps_run_in_outage", "canary_s"),
    "fencing": ("stops", "overtaken_while_stopped", "stale_writes_refused"),
    "cancels": ("cancelled_queued", "cancelled_running", "ended_before", "cancel_s"),
    "sse": ("streams", "jobs", "streamed_events", "stream_cuts", "api_restarts"),
    "idempotency": ("pairs", "jobs", "api_kills", "conflicts_refused"),
    "ledger": ("histories",),
    "churn": ("churned_jobs", "bytes_before", "bytes_after"),
}


def table(records: Path) -> str:
    """A row for the last run of each scenario."""
    rows = ["| Scenario | Form | Figures | Violations | When, commit, machine |", "|---|---|---|---|---|"]
    for name, fields in SHOWN.items():
        last = newest(records, name)
        if last is None:
            continue
        found = last["scenarios"][name]
        shown = "; ".join(f"{field} {_figure(found[field])}" for field in fields if field in found)
        where = f"{found['at'][:16].replace('T', ' ')}, {last['commit']}, {_machine(last['machine'])}"
        rows.append(f"| `{name}` | {last['chaos']} | {shown} | {len(found['violations'])} | {where} |")
    return "\n".join(rows)


def newest(records: Path, name: str) -> dict[str, Any] | None:
    """The last long run of a scenario, or the last short one where there is no long one."""
    lines = [
        orjson.loads(raw)
        for path in sorted(records.glob(f"*-chaos-{name}.json"))
        for raw in path.read_bytes().splitlines()
    ]
    lines.sort(key=lambda line: (line["chaos"] == "long", line["scenarios"][name]["at"]))
    return lines[-1] if lines else None


def _machine(told: str | dict[str, Any]) -> str:
    """Older records tell of it in words, newer ones by `benchmarks/origin.py`."""
    return told if isinstance(told, str) else f"{told['cores']} cores, {told['kernel']}, Python {told['python']}"


def _figure(value: object) -> str:
    if isinstance(value, dict):
        if not value["n"]:
            return "none"
        return f"{value['p50']:.2f} / {value['p99']:.2f} / {value['max']:.2f} (n = {value['n']})"
    return f"{value:,}"


def page(text: str, figures: str) -> str:
    """The page with these figures."""
    return re.sub(f"(?<={_BEGIN}\n).*?(?={_END})", lambda _: figures + "\n", text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/chaos/table.py", description="The figures of the last runs.")
    parser.add_argument("--write", action="store_true", help="put them into docs/reliability.md")
    figures = table(RECORDS)
    if parser.parse_args().write:
        PAGE.write_text(page(PAGE.read_text(), figures))
    else:
        print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
