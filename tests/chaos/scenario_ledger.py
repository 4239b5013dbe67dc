"""The long forms of two tests of `tests/jobs` that stand on their own: the ledger against its model, and its memory."""

import asyncio
import os
import sys
from pathlib import Path

import orjson
from scene import Report

TESTS = Path(__file__).resolve().parents[1]


async def ledger(folder: Path, *, seed: int, examples: int) -> Report:
    """`examples` random histories of 50 steps: the Lua ledger does what the model in pure Python does."""
    options = ["-q", "--timeout", "0", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}"]
    machine = str(TESTS / "jobs" / "test_ledger_machine.py")
    code, said = await _python("-m", "pytest", *options, machine, RESNETD_LEDGER_EXAMPLES=str(examples))
    report = Report()
    report.counts["histories"] = examples
    if code != 0:
        report.violate(f"ledger: {said[-4000:]}")
    return report


async def churn(folder: Path, *, seed: int, jobs: int) -> Report:
    """`jobs` jobs come and go: Redis has its memory back within 2 %."""
    code, said = await _python(str(TESTS / "jobs" / "churn.py"), str(jobs), PYTHONPATH=f"{TESTS}:{TESTS.parent}")
    report = Report()
    last = said.splitlines()[-1] if said else ""
    if code not in (0, 1) or not last.startswith("{"):  # an exception's exit status is 1 too
        report.violate(f"churn: {said[-4000:]}")
        return report
    found = orjson.loads(last)
    report.counts.update(churned_jobs=found["jobs"], bytes_before=int(found["before"]), bytes_after=int(found["after"]))
    report.sample("memory_growth", found["growth"])
    if not found["passed"]:
        report.violate(f"churn: memory grew by {found['growth']:.1%}")
    return report


async def _python(*arguments: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=TESTS.parent,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")
