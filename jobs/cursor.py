"""Cursors of lists that are ordered by the moment of creation: they need nothing that may be deleted meanwhile."""

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile(r"([0-9]{1,17})_(.+)")


def cursor(created_at: datetime, name: str) -> str:
    """What stands for the place behind an entry: `<microseconds since 1970>_<name>`."""
    return f"{(created_at - _EPOCH) // _MICROSECOND}_{name}"


def place(text: str) -> tuple[datetime, str] | None:
    """The moment and the name that `cursor` was made of; None for what is no cursor."""
    found = _CURSOR.fullmatch(text)
    return (_EPOCH + int(found[1]) * _MICROSECOND, found[2]) if found else None


def milliseconds(moment: datetime) -> str:
    """Milliseconds since 1970 with three decimals, as the ledger writes moments down; exact."""
    whole, rest = divmod((moment - _EPOCH) // _MICROSECOND, 1000)
    return f"{whole}.{rest:03d}"
