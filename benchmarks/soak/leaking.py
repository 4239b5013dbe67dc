"""An HTTP process that keeps 1 KB of every request: what a soak must catch."""

import sys

from app import __main__ as http
from app import middleware

_kept: list[bytearray] = []
_plain = middleware.request_id_for


def _leak(headers: list[tuple[bytes, bytes]]) -> str:
    _kept.append(bytearray(1024))
    return _plain(headers)


if __name__ == "__main__":
    middleware.request_id_for = _leak
    sys.exit(http.main())
