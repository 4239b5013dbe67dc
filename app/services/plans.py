"""Plans of trainings: the question is checked, put before a worker, and its answer waited for. Nothing is queued."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.problems import InvalidError, ProblemError, UnavailableError
from app.services import recipes
from app.services.datasets import Datasets
from app.services.ledger import AsyncLedger
from app.services.submissions import check_ready
from jobs.plans import ANSWER_SECONDS, TAKE_SECONDS, PlanEntry, Plans, PlanState
from models.catalog import Catalog

_LOOK_SECONDS = 0.1
_AT_ONCE = 8  # a worker answers them one after another, and these would all be too late
_NO_WORKER_HINT = (
    "A worker plans between two jobs of its CPU lane. See whether one is connected (GET /readyz), start one "
    "(`resnetd work`), or ask again later."
)


class Planning:
    """`tell` has a worker hear of a question; False where that is not possible now."""

    def __init__(
        self, ledger: AsyncLedger, datasets: Datasets, catalog: Catalog, *, tell: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._ledger = ledger
        self._datasets = datasets
        self._catalog = catalog
        self._tell = tell
        self._asking = 0

    async def plan(self, spec: dict[str, Any], *, max_seconds: float | None) -> dict[str, Any]:
        """What the training would be. Raises InvalidError, ConflictError and UnavailableError as a submission does, and
        UnavailableError where no worker answers in time.
        """
        return await self._answer(spec, {"max_seconds": max_seconds})

    async def curve(self, spec: dict[str, Any]) -> bytes:
        """The learning rate over the training, as SVG."""
        drawn: str = (await self._answer(spec, {"curve": True}))["svg"]
        return drawn.encode()

    async def _answer(self, spec: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        spec = await recipes.checked(spec, self._catalog)
        with await self._datasets.kept(spec["dataset"]) as dataset:
            check_ready(dataset)
        request = {name: spec[name] for name in ("dataset", "recipe", "overrides")} | more
        if self._asking >= _AT_ONCE:
            hint = "Ask again when one of them is answered."
            raise UnavailableError("too_many_plans", f"{_AT_ONCE} plans are being made.", hint=hint, retry_after=5)
        self._asking += 1
        try:
            return await self._asked(request)
        finally:
            self._asking -= 1

    async def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        plan_id = await self._ledger.read(lambda ledger: Plans(ledger.redis).ask(request))
        try:
            if not await self._tell(plan_id):
                hint = "Ask again when Redis answers; GET /readyz says whether it does."
                raise UnavailableError("ledger_unavailable", "No worker could be told of the question.", hint=hint)
            while True:
                entry = await self._ledger.read(lambda ledger: Plans(ledger.redis).look(plan_id))
                if (answer := _read(entry, waited=time.monotonic() - began)) is not None:
                    return answer
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            with contextlib.suppress(ProblemError):  # its time to live removes it otherwise
                await asyncio.shield(self._ledger.read(lambda ledger: Plans(ledger.redis).forget(plan_id)))


def _read(entry: PlanEntry | None, *, waited: float) -> dict[str, Any] | None:
    """The plan, or None while it is worth waiting for. Raises ProblemError."""
    if entry is not None and entry.state is PlanState.ANSWERED:
        return entry.body
    if entry is not None and entry.state is PlanState.REFUSED:
        body = entry.body
        if body["passing"]:
            raise UnavailableError(body["code"], f"{body['message']}.", hint=body["hint"], retry_after=5)
        raise InvalidError(body["code"], f"{body['message']}.", hint=body["hint"])
    if entry is None or waited > ANSWER_SECONDS:
        detail = f"A worker began the plan and did not end it within {ANSWER_SECONDS:g} s."
        raise UnavailableError(
            "plan_too_slow", detail, hint="Its machine is very busy; ask again later.", retry_after=30
        )
    if entry.state is PlanState.ASKED and waited > TAKE_SECONDS:
        detail = f"No worker took the question for a plan within {TAKE_SECONDS:g} s."
        raise UnavailableError("no_worker", detail, hint=_NO_WORKER_HINT, retry_after=10)
    return None
