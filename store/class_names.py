"""Names of classes as datasets and models have them: they stand in lists, answers, headers, tables and figures."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

MOST, LONGEST = 100_000, 255


def unclear(names: Sequence[str]) -> str | None:
    """Why these cannot be the names of a dataset's or a model's classes; None where they can."""
    if len(names) > MOST:
        return f"{len(names):,} classes, more than the {MOST:,} that are possible"
    for name in names:
        if not 0 < len(name) <= LONGEST:
            return f"the class {name[:40]!r}… has {len(name):,} characters" if name else "a class has an empty name"
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            return f"the class {name!r} has a control character in its name"
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    return None if twice is None else f"the class {twice!r} is named twice"
