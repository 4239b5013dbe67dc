"""Every scenario with its long and its short size."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scenario_clients import cancels, idempotency, sse
from scenario_faults import faults
from scenario_fencing import fencing
from scenario_kills import kills
from scenario_ledger import churn, ledger
from scenario_redis import ack_then_kill, half_open, lost_replies, outage, redis_pauses, redis_restarts
from scene import Report

Scale = Literal["long", "short"]
TEST_SEED = 20261122


@dataclass(frozen=True)
class Scenario:
    """`run(folder, seed=…, **sizes)`. `short` is None where another test of `make test` is the small form."""

    run: Callable[..., Awaitable[Report]]
    long: dict[str, Any]
    short: dict[str, Any] | None

    def sizes(self, scale: Scale) -> dict[str, Any]:
        """Raises LookupError where there is no such form."""
        sizes = self.long if scale == "long" else self.short
        if sizes is None:
            raise LookupError(f"there is no {scale} form here")
        return sizes

    async def __call__(self, folder: Path, *, seed: int, scale: Scale) -> Report:
        return await self.run(folder, seed=seed, **self.sizes(scale))


#: A lease of the short sizes, so that stops longer than it take seconds. The long sizes have the product's 30 s.
SHORT_LEASE_MS = 2000
#: The short sizes run beside other tests on crowded cores: what is a limit in seconds gets so much more. The long ones
#: keep the limits as they are promised.
SLACK = 3.0

SCENARIOS: dict[str, Scenario] = {
    "faults": Scenario(
        faults,
        long={"stop_seconds": 40.0, "lease_ms": None, "points_a_stack": 1, "at_once": 4},
        short={"stop_seconds": 3.0, "lease_ms": SHORT_LEASE_MS, "points_a_stack": 100, "at_once": 3},
    ),
    "kills": Scenario(
        kills,
        long={"kills": 1000, "jobs": 2000, "pause": (0.3, 2.0), "stacks": 2},
        short={"kills": 15, "jobs": 15, "pause": (0.2, 1.0), "stacks": 1, "slack": SLACK},
    ),
    "redis_restarts": Scenario(redis_restarts, long={"times": 200, "stacks": 2}, short={"times": 4, "stacks": 1}),
    "redis_pauses": Scenario(
        redis_pauses,
        long={"times": 50, "seconds": 60.0, "stacks": 5},
        short={"times": 2, "seconds": 5.0, "stacks": 1, "slack": SLACK},
    ),
    "half_open": Scenario(
        half_open, long={"times": 50, "seconds": (1.0, 40.0)}, short={"times": 1, "seconds": (4.0, 6.0), "slack": SLACK}
    ),
    "lost_replies": Scenario(lost_replies, long={"jobs": 300, "chance": 0.02}, short={"jobs": 8, "chance": 0.02}),
    "ack_then_kill": Scenario(ack_then_kill, long={"times": 500, "stacks": 2}, short={"times": 6, "stacks": 1}),
    "outage": Scenario(outage, long={"seconds": 600.0}, short={"seconds": 8.0, "slack": SLACK}),
    "fencing": Scenario(
        fencing,
        long={"stops": 300, "seconds": 50.0, "lease_ms": None, "workers": 6, "stacks": 3},
        short={"stops": 4, "seconds": 12.0, "lease_ms": SHORT_LEASE_MS, "workers": 4, "stacks": 1},
    ),
    "cancels": Scenario(cancels, long={"times": 2000, "stacks": 2}, short={"times": 25, "stacks": 1, "slack": SLACK}),
    "sse": Scenario(
        sse,
        long={
            "clients": 200,
            "jobs": 500,
            "epochs": 496,
            "followed": 5,
            "lifetime": (0.2, 5.0),
            "restarts": 40,
            "pause": (2.0, 10.0),
        },
        short={
            "clients": 12,
            "jobs": 6,
            "epochs": 150,
            "followed": 3,
            "lifetime": (0.1, 1.0),
            "restarts": 2,
            "pause": (0.3, 1.0),
        },
    ),
    "idempotency": Scenario(
        idempotency,
        long={"pairs": 1000, "at_once": 50, "kills": 20},
        short={"pairs": 40, "at_once": 20, "kills": 2},
    ),
    "ledger": Scenario(ledger, long={"examples": 5000}, short=None),
    "churn": Scenario(churn, long={"jobs": 50_000}, short=None),
}
