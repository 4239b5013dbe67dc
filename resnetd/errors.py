"""What a person is told when a request or a start fails. Imports nothing, so that the command line starts at once."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Problem(Exception):
    """The server refused: RFC 9457 problem details. `code` is stable; `hint` says what to do instead."""

    status: int
    code: str
    title: str
    detail: str
    hint: str | None = None
    request_id: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    #: What the request was sent under; sent again under the same key, it counts once.
    idempotency_key: str | None = None

    def __str__(self) -> str:
        return f"{self.title} ({self.status}, {self.code}): {self.detail}"


@dataclass
class Unreachable(Exception):
    """Nobody answered at `server`."""

    server: str
    reason: str
    #: As of `Problem`.
    idempotency_key: str | None = None

    def __str__(self) -> str:
        return f"No answer from {self.server}: {self.reason}"


@dataclass
class Refused(Exception):
    """The command cannot be carried out as it was given; nothing was sent."""

    message: str
    hint: str | None = None

    def __str__(self) -> str:
        return self.message


class CannotStart(RuntimeError):
    """Why nothing was started, and what to do about it."""
