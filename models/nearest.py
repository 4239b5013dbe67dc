"""Of the names that there are, the one that was probably meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar of the known names, of which there is one at least, whatever the case of the letters."""
    lower = {each.lower(): each for each in reversed(list(known))}
    return lower[difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.0)[0]]


def did_you_mean(name: str, known: Iterable[str], *, quote: str = "`") -> str:
    """A question and a blank, to stand before a hint; empty where no known name is much like this one."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {quote}{near[0]}{quote}? " if near else ""
