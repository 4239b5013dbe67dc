"""Of the names that there are, the one that was probably meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar of the known names, of which there is one at least, whatever the case of the letters."""
    return _like(name, known, cutoff=0.0)[0]


def close(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """The most similar of the known names, whatever the case of the letters; None where all are less so than `cutoff`.

    Similar is what has letters in common in the same order: from 0, none, to 1, the same name.
    """
    return next(iter(_like(name, known, cutoff=cutoff)), None)


def _like(name: str, known: Iterable[str], *, cutoff: float) -> list[str]:
    lower = {each.lower(): each for each in reversed(list(known))}
    return [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str], *, quote: str = "`") -> str:
    """A question and a blank, to stand before a hint; empty where no known name is much like this one."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {quote}{near[0]}{quote}? " if near else ""
