"""What a client would rather have (RFC 9110, 12.5.1)."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def prefer(accept: str, offered: Mapping[str, T]) -> T | None:
    """Of `offered`, by media range, what an Accept header likes best: the greatest q, the first of equals.

    None where it takes nothing of that. No header takes everything.
    """
    best: tuple[float, T] | None = None
    for item in (accept or "*/*").split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((_quality(each[2:]) for each in parameters if each.startswith("q=")), 1.0)
        if kind in offered and quality > 0 and (best is None or quality > best[0]):
            best = (quality, offered[kind])
    return best[1] if best else None


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
