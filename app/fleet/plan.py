"""The fleet's decisions, as functions of what is: which version each alias serves, what stays loaded, who goes."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

Key = tuple[str, int]  # a model's name and version

_BACKOFF_FIRST = 0.5
_BACKOFF_LONGEST = 30.0


@dataclass(frozen=True)
class Plan:
    """For one model: the version that each alias serves, and the versions that have an engine."""

    serving: dict[str, int]
    keep: frozenset[int]


def plan(
    *,
    targets: Mapping[str, int],
    serving: Mapping[str, int],
    loaded: AbstractSet[int],
    ready: AbstractSet[int],
    requested: AbstractSet[int],
) -> Plan:
    """Follow the aliases of a model without a gap.

    An alias (`targets`: where it points to) goes on serving what it served while that is loaded and the new version is
    not ready. Versions asked for by number (`requested`) stay; others stay while an alias needs them. An alias that
    serves nothing loaded loads nothing when it moves.
    """
    now: dict[str, int] = {}
    keep = set(requested)
    for alias, target in targets.items():
        before = serving.get(alias, target)
        now[alias] = before if before in loaded and target not in ready else target
        if now[alias] in loaded or before in loaded:
            keep |= {now[alias], target}
    return Plan(serving=now, keep=frozenset(keep))


def victim(idle_seconds: Mapping[Key, float], *, kept: AbstractSet[Key]) -> Key | None:
    """The engine that makes room for another: the one that nobody used for longest, none of `kept`; None if all are."""
    candidates = {key: idle for key, idle in idle_seconds.items() if key not in kept}
    return max(candidates, key=lambda key: candidates[key], default=None)


def backoff(failures: int) -> float:
    """Seconds to wait before the start that follows so many failures in a row: 0.5, 1, 2, … 30."""
    return float(min(_BACKOFF_LONGEST, _BACKOFF_FIRST * 2.0 ** min(failures - 1, 16)))
