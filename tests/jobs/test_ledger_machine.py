"""Whatever is asked in whatever order, and however often: the ledger in Redis does what the plain one does."""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger_machine import LedgerMachine

#: How many runs of `STEPS` steps; `make chaos` asks for 5,000.
EXAMPLES = int(os.environ.get("RESNETD_LEDGER_EXAMPLES", "200"))
STEPS = 50


@pytest.fixture
def lazy(redis):
    """Redis does not wait for the disk after each write: what is compared here is what the scripts do."""
    redis.config_set("appendfsync", "no")
    yield redis
    redis.config_set("appendfsync", "always")


def test_the_ledger_does_what_its_model_does(lazy, ledger):
    class Machine(LedgerMachine):
        redis = lazy
        own = ledger.redis

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            print_blob=True,
        ),
    )
