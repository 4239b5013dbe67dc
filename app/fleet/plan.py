"""The fleet's decisions, as functions of what is: which version each alias serves, what stays loaded, who goes."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from app.inference.routes import Split

Key = tuple[str, int]  # a model's name and version

_BACKOFF_FIRST = 0.5
_BACKOFF_LONGEST = 30.0


@dataclass(frozen=True)
class Plan:
    """For one model: the version that each alias serves, and the versions that have an engine.

    `splits` has the canaries and shadows that can be asked. `held` are those of `keep` that an alias in use will go to
    or shares its requests with: gone, they would be loaded again at once.
    """

    serving: dict[str, int]
    keep: frozenset[int]
    splits: dict[str, Split] = field(default_factory=dict)
    held: frozenset[int] = frozenset()


def plan(
    *,
    targets: Mapping[str, int],
    serving: Mapping[str, int],
    loaded: AbstractSet[int],
    ready: AbstractSet[int],
    requested: AbstractSet[int],
    splits: Mapping[str, Split] | None = None,
    proven: Mapping[str, int] | None = None,
    failed: AbstractSet[int] = frozenset(),
) -> Plan:
    """Follow the aliases of a model without a gap.

    An alias (`targets`: where it points to) goes on serving what it served while the new version is not ready: what is
    loaded, and what was ready when it last served the alias (`proven`), which is loaded again where it is not. Versions
    asked for by number (`requested`) stay; others stay while an alias needs them. An alias that serves nothing loaded
    loads nothing when it moves; where what it moved to has `failed`, the version that is proven serves. Its canary and
    its shadow (`splits`: as they are wanted) are loaded while it is, and get their share of the requests from the
    moment that they are ready.
    """
    now: dict[str, int] = {}
    shared: dict[str, Split] = {}
    keep, held = set(requested), set[int]()
    for alias, target in targets.items():
        before = serving.get(alias, target)
        if target in ready:
            now[alias] = target
        else:
            now[alias] = _meanwhile(target, before, (proven or {}).get(alias), loaded=loaded, failed=failed)
        if now[alias] in loaded or before in loaded:
            wanted = (splits or {}).get(alias, Split())
            held |= ({target} | wanted.versions()) - {now[alias]}
            keep |= {now[alias], target} | wanted.versions()
            if wanted.among(ready) != Split():
                shared[alias] = wanted.among(ready)
    return Plan(serving=now, keep=frozenset(keep), splits=shared, held=frozenset(held))


def _meanwhile(
    target: int, before: int, proven: int | None, *, loaded: AbstractSet[int], failed: AbstractSet[int]
) -> int:
    """Who serves an alias that served `before` and goes to `target`, which is not ready."""
    if before == proven or (before in loaded and before not in failed):
        return before
    if proven is not None and not failed.isdisjoint({before, target}):
        return proven
    return target


def victim(idle_seconds: Mapping[Key, float], *, kept: AbstractSet[Key]) -> Key | None:
    """The engine that makes room for another: the one that nobody used for longest, none of `kept`; None if all are."""
    candidates = {key: idle for key, idle in idle_seconds.items() if key not in kept}
    return max(candidates, key=lambda key: candidates[key], default=None)


def backoff(failures: int) -> float:
    """Seconds to wait before the start that follows so many failures in a row: 0.5, 1, 2, … 30."""
    return float(min(_BACKOFF_LONGEST, _BACKOFF_FIRST * 2.0 ** min(failures - 1, 16)))
