"""What a client would rather have (RFC 9110, 12.5.1)."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


def prefer(accept: str, offered: Mapping[str, T]) -> T | None:
    """Of `offered`, by media type, what an Accept header likes best.

    What it says of a type is what its most specific range says that takes it in: `image/png;q=0, */*` takes no PNG. Of
    equals the one that is named more specifically is liked better, then the one that is offered first. None where it
    takes nothing of that. No header takes everything.
    """
    ranges = dict(_ranges(accept or "*/*"))
    best: tuple[float, int] = (0.0, 2)  # a quality of 0 is of what is not taken
    chosen: T | None = None
    for kind, what in offered.items():
        asked = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        said = next(((ranges[each], 2 - n) for n, each in enumerate(asked) if each in ranges), (0.0, 0))
        if said > best:
            best, chosen = said, what
    return chosen


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Each media range with its quality."""
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        yield kind, next((_quality(each[2:]) for each in parameters if each.startswith("q=")), 1.0)


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
