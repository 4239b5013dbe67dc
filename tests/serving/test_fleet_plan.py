"""The fleet's decisions."""

import pytest

from app.fleet.plan import Plan, backoff, plan, victim


def decide(
    targets: dict[str, int],
    *,
    serving: dict[str, int] | None = None,
    loaded: set[int] | None = None,
    ready: set[int] | None = None,
    requested: set[int] | None = None,
) -> Plan:
    loaded = loaded or set()
    return plan(
        targets=targets,
        serving=serving or {},
        loaded=loaded,
        ready=loaded if ready is None else ready,
        requested=requested or set(),
    )


def test_an_alias_that_moves_goes_on_serving_the_old_version_until_the_new_one_is_ready() -> None:
    moving = decide({"production": 2}, serving={"production": 1}, loaded={1})
    assert moving == Plan(serving={"production": 1}, keep=frozenset({1, 2}))
    loading = decide({"production": 2}, serving={"production": 1}, loaded={1, 2}, ready={1})
    assert loading == moving
    done = decide({"production": 2}, serving={"production": 1}, loaded={1, 2})
    assert done == Plan(serving={"production": 2}, keep=frozenset({2}))


def test_an_alias_stays_where_it_is_while_its_engine_restarts_and_the_new_one_is_not_ready() -> None:
    assert decide({"production": 2}, serving={"production": 1}, loaded={1, 2}, ready=set()).serving == {"production": 1}


def test_an_alias_that_serves_nothing_loaded_moves_without_loading_anything() -> None:
    assert decide({"production": 2}, serving={"production": 1}) == Plan(serving={"production": 2}, keep=frozenset())
    canary = decide({"production": 1, "canary": 3}, serving={"production": 1, "canary": 2}, loaded={1})
    assert canary == Plan(serving={"production": 1, "canary": 3}, keep=frozenset({1}))


def test_a_version_asked_for_by_number_stays_when_its_alias_moves_on() -> None:
    both = decide({"production": 2}, serving={"production": 1}, loaded={1, 2}, requested={1})
    assert both == Plan(serving={"production": 2}, keep=frozenset({1, 2}))


def test_a_version_that_another_alias_serves_stays() -> None:
    targets, serving = {"production": 2, "stable": 1}, {"production": 1, "stable": 1}
    assert decide(targets, serving=serving, loaded={1, 2}).keep == {1, 2}


def test_an_alias_that_moves_back_before_the_new_version_is_ready_lets_that_one_go() -> None:
    assert decide({"production": 1}, serving={"production": 1}, loaded={1, 2}, ready={1}).keep == {1}


def test_the_longest_unused_engine_makes_room_but_never_one_that_is_kept() -> None:
    idle = {("a", 1): 50.0, ("b", 1): 3.0, ("b", 2): 20.0}
    assert victim(idle, kept={("a", 1)}) == ("b", 2)
    assert victim(idle, kept=set(idle)) is None


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10_000, 30.0)])
def test_restarts_back_off_from_half_a_second_to_thirty(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds
