"""The fleet's decisions."""

from functools import partial

import pytest

from app.fleet.plan import Plan, backoff, plan, victim
from app.inference.routes import Routes, Split


def decide(
    targets: dict[str, int],
    *,
    serving: dict[str, int] | None = None,
    loaded: set[int] | None = None,
    ready: set[int] | None = None,
    requested: set[int] | None = None,
    splits: dict[str, Split] | None = None,
    proven: dict[str, int] | None = None,
    failed: set[int] | None = None,
) -> Plan:
    loaded = loaded or set()
    return plan(
        targets=targets,
        serving=serving or {},
        loaded=loaded,
        ready=loaded if ready is None else ready,
        requested=requested or set(),
        splits=splits,
        proven=proven,
        failed=failed or set(),
    )


def test_an_alias_that_moves_goes_on_serving_the_old_version_until_the_new_one_is_ready() -> None:
    moving = decide({"production": 2}, serving={"production": 1}, loaded={1})
    assert moving == Plan(serving={"production": 1}, keep=frozenset({1, 2}), held=frozenset({2}))
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


def test_what_served_before_the_fleet_was_started_anew_serves_until_the_new_version_is_ready() -> None:
    known = partial(decide, {"production": 2}, serving={"production": 1}, proven={"production": 1})
    assert known() == Plan(serving={"production": 1}, keep=frozenset())
    loading = known(loaded={1}, ready=set())
    assert loading == Plan(serving={"production": 1}, keep=frozenset({1, 2}), held=frozenset({2}))
    assert known(loaded={1, 2}, ready={1}, failed={2}) == loading
    done = known(loaded={1, 2})
    assert done == Plan(serving={"production": 2}, keep=frozenset({2}))


def test_a_version_that_failed_to_load_gives_way_to_the_one_that_is_proven() -> None:
    known = partial(decide, serving={"production": 2}, proven={"production": 1}, loaded={2}, ready=set())
    assert known({"production": 2}).serving == {"production": 2}
    back = Plan(serving={"production": 1}, keep=frozenset({1, 2}), held=frozenset({2}))
    assert known({"production": 2}, failed={2}) == back
    moved_on = known({"production": 3}, failed={2})
    assert moved_on == Plan(serving={"production": 1}, keep=frozenset({1, 3}), held=frozenset({3}))


def test_a_first_version_that_failed_is_served_as_what_it_is() -> None:
    assert decide({"production": 1}, loaded={1}, ready=set(), failed={1}).serving == {"production": 1}
    repointed = decide({"production": 2}, serving={"production": 1}, loaded={1}, ready=set(), failed={1})
    assert repointed.serving == {"production": 2}  # whoever asks waits for it, and is not refused


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


BOTH = {"production": Split(canary=2, percent=10.0, shadow=3)}


def test_a_canary_and_a_shadow_are_loaded_before_they_get_anything() -> None:
    loading = decide({"production": 1}, serving={"production": 1}, loaded={1}, splits=BOTH)
    assert loading == Plan(serving={"production": 1}, keep=frozenset({1, 2, 3}), held=frozenset({2, 3}))
    one = decide({"production": 1}, serving={"production": 1}, loaded={1, 2, 3}, ready={1, 3}, splits=BOTH)
    assert one.splits == {"production": Split(shadow=3)}
    both = decide({"production": 1}, serving={"production": 1}, loaded={1, 2, 3}, splits=BOTH)
    assert (both.splits, set(both.held)) == (BOTH, {2, 3})


def test_the_canary_of_a_model_that_is_not_loaded_is_not_loaded_either() -> None:
    assert decide({"production": 1}, splits=BOTH).keep == frozenset()


def test_a_canary_that_is_promoted_serves_at_once_and_the_old_version_goes() -> None:
    promoted = decide({"production": 2}, serving={"production": 1}, loaded={1, 2}, splits={})
    assert promoted == Plan(serving={"production": 2}, keep=frozenset({2}))


def test_a_canary_that_is_given_up_goes_and_gets_nothing_more() -> None:
    given_up = decide({"production": 1}, serving={"production": 1}, loaded={1, 2}, splits={})
    assert given_up == Plan(serving={"production": 1}, keep=frozenset({1}))


@pytest.mark.parametrize("percent", [0.0, 0.1, 10.0, 33.3, 100.0])
def test_a_canary_gets_its_percentage_of_all_draws_exactly(percent: float) -> None:
    routes = Routes(aliases={"m": {"production": 1}}, splits={"m": {"production": Split(canary=2, percent=percent)}})
    draws = [number / 10_000 for number in range(10_000)]
    chosen = [routes.choose("m", "production", draw) for draw in draws]
    assert sum(1 for each in chosen if each is not None and each.version == 2) == round(percent * 100)
    assert routes.choose("m", "production", 1.0) is not None
    assert routes.choose("m", "production", 1.0).version == 1  # type: ignore[union-attr]  # the line above
    assert routes.choose("m", "nightly", 0.0) is None


def test_a_canary_that_is_the_shadow_too_gets_no_copy_of_what_it_answers() -> None:
    split = Split(canary=2, percent=50.0, shadow=2)
    routes = Routes(aliases={"m": {"production": 1}}, splits={"m": {"production": split}})
    answers = [routes.choose("m", "production", draw) for draw in (0.2, 0.8)]
    assert [(each.version, each.shadow) for each in answers if each is not None] == [(2, None), (1, 2)]


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10_000, 30.0)])
def test_restarts_back_off_from_half_a_second_to_thirty(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds
