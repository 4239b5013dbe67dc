"""Parts of lists that are in memory as a whole, and what is told of a cursor that no list knows."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from app.problems import InvalidError, wrong

Entry = TypeVar("Entry")


def part(
    entries: Sequence[Entry],
    *,
    name: Callable[[Entry], str],
    limit: int,
    after: str | None,
    left: Callable[[str], bool] = lambda _: False,
) -> tuple[Sequence[Entry], str | None]:
    """At most `limit` entries from behind the one that is called `after`; and the `after` of the next part, or None.

    `left`: whether an entry of that name may have stood here. A list that drops what is at its end has nothing behind
    such a one. Raises InvalidError for any other unknown name.
    """
    start = 0
    if after is not None:
        start = next((index + 1 for index, entry in enumerate(entries) if name(entry) == after), len(entries) + 1)
        if start > len(entries) and not left(after):
            raise bad_cursor(after)
    found = entries[start : start + limit]
    return found, name(found[-1]) if start + limit < len(entries) else None


def bad_cursor(after: str) -> InvalidError:
    detail = f"Nothing is known under {after[:80]!r}"
    return InvalidError(
        "invalid_cursor",
        f"{detail}.",
        hint="`after` is the `next` of the page before.",
        errors=wrong("/query/after", detail),
    )
