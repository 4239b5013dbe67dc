"""Which classification requests an HTTP process takes in: bounded by their number, their bytes, and each key's number.

What is too much is refused when its head is there, before its body is read: an answer in milliseconds, and memory that
does not grow with the load. The engines bound their own queues by images, bytes and time (`app/engine/admission.py`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.problems import TooManyError, UnavailableError

Reason = Literal["key", "requests", "bytes", "engine"]
_HINT = "Ask again later, slower."


@dataclass(frozen=True)
class Limits:
    """Of one HTTP process. One request alone is always let in, however large."""

    requests: int
    per_key: int
    bytes: int

    def share(self, processes: int) -> "Limits":
        """One process's part of what all of them may hold; none has less than one request."""
        return Limits(*(-(-whole // processes) for whole in (self.requests, self.per_key, self.bytes)))


class Ticket:
    """One request's place. `leave` gives it back."""

    def __init__(self, admission: "Admission", key: str | None) -> None:
        self._admission = admission
        self._key = key
        self._bytes = 0

    def hold(self, size: int) -> None:
        """The request's body has at least so many bytes. Raises UnavailableError where they are too many for now."""
        if size > self._bytes:
            self._admission.reserve(size - self._bytes)
            self._bytes = size

    def leave(self) -> None:
        self._admission.release(self._key, self._bytes)


class Admission:
    """Counts what is in the house. `tell` hears of every refusal."""

    def __init__(self, limits: Limits, *, tell: Callable[[Reason], None]) -> None:
        self._limits = limits
        self._tell = tell
        self._requests = 0
        self._bytes = 0
        self._by_key: Counter[str] = Counter()

    def enter(self, key: str | None, *, size: int) -> Ticket:
        """A place for a request whose body is said to have `size` bytes; `key` is the id of the key that it came with.

        Raises TooManyError where the key has too many under way, UnavailableError where all together have.
        """
        if key is not None and self._by_key[key] >= self._limits.per_key:
            self._tell("key")
            detail = f"This key has {self._by_key[key]} requests under way; at most {self._limits.per_key} may be."
            raise TooManyError("too_many_requests", detail, hint="Wait for answers before you send more.")
        if self._requests >= self._limits.requests:
            self._tell("requests")
            raise UnavailableError("overloaded", f"{self._requests} requests are under way.", hint=_HINT, retry_after=1)
        ticket = Ticket(self, key)
        self._requests += 1
        if key is not None:
            self._by_key[key] += 1
        try:
            ticket.hold(size)
        except UnavailableError:
            ticket.leave()
            raise
        return ticket

    def refuse_full(self) -> UnavailableError:
        """For a request whose engine has just said that it is full."""
        self._tell("engine")
        return UnavailableError("overloaded", "The model's engine is full.", hint=_HINT, retry_after=1)

    def reserve(self, size: int) -> None:
        """Raises UnavailableError."""
        if self._bytes + size > self._limits.bytes and self._requests > 1:
            self._tell("bytes")
            detail = f"{self._bytes:,} bytes of requests are held, and this one is too large beside them."
            raise UnavailableError("overloaded", detail, hint=_HINT, retry_after=1)
        self._bytes += size

    def release(self, key: str | None, size: int) -> None:
        self._requests -= 1
        self._bytes -= size
        if key is not None:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
