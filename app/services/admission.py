"""Which classification requests an HTTP process takes in: bounded by their number, their bytes, and each key's part.

What is too much is refused when its head is there, before its body is read: an answer in milliseconds, and memory that
does not grow with the load. Bytes count when they are here, not when they are announced: who announces much and sends
little takes no place from others. So bodies that are read together may turn out too many; then the one whose next
bytes have no place is refused, what it held is free again, and the others go on. The engines bound their own queues by
images, bytes and time (`app/engine/admission.py`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.problems import TooManyError, UnavailableError

Reason = Literal["key", "requests", "bytes", "engine"]
_HINT = "Ask again later, slower."
_KEYS_HINT = "Wait for answers before you send more."


@dataclass(frozen=True)
class Limits:
    """Of one HTTP process. One request alone is always let in, however large."""

    requests: int
    per_key: int
    bytes: int

    @property
    def bytes_per_key(self) -> int:
        """A key's part of the bytes is as large as its part of the requests."""
        return self.bytes * min(self.per_key, self.requests) // self.requests

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
        """So many bytes of the request's body are here. Raises as `Admission.check` where they have no place."""
        if size > self._bytes:
            more = size - self._bytes
            self._admission.check(self._key, more)
            self._admission.reserve(self._key, more)
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
        self._bytes_by_key: Counter[str] = Counter()

    @property
    def requests(self) -> int:
        """Requests in the house."""
        return self._requests

    @property
    def held_bytes(self) -> int:
        """Bytes of their bodies that are here."""
        return self._bytes

    def enter(self, key: str | None, *, announced: int) -> Ticket:
        """A place for a request; `key` is the id of the key that it came with.

        Of its body nothing is here yet. One of `announced` bytes that has no place beside what is held now is refused
        before it is read. Raises TooManyError where the key has too much under way, UnavailableError where all together
        have.
        """
        if key is not None and self._by_key[key] >= self._limits.per_key:
            self._tell("key")
            detail = f"This key has {self._by_key[key]} requests under way; at most {self._limits.per_key} may be."
            raise TooManyError("too_many_requests", detail, hint=_KEYS_HINT)
        if self._requests >= self._limits.requests:
            self._tell("requests")
            raise UnavailableError("overloaded", f"{self._requests} requests are under way.", hint=_HINT, retry_after=1)
        self._requests += 1
        if key is not None:
            self._by_key[key] += 1
        ticket = Ticket(self, key)
        try:
            self.check(key, announced)
        except (TooManyError, UnavailableError):
            ticket.leave()
            raise
        return ticket

    def refuse_full(self) -> UnavailableError:
        """For a request that would be refused once it was read: its engine has just said that it is full, or could not
        answer in time. Of what is refused later figures tell by model (`inference_requests_total`).
        """
        self._tell("engine")
        return UnavailableError("overloaded", "The model's engine is full.", hint=_HINT, retry_after=1)

    def check(self, key: str | None, size: int) -> None:
        """Whether there is a place for so many more bytes. Raises TooManyError, UnavailableError."""
        limits = self._limits
        if key is not None and self._by_key[key] > 1 and self._bytes_by_key[key] + size > limits.bytes_per_key:
            self._tell("key")
            detail = f"This key has requests of {self._bytes_by_key[key]:,} bytes under way; these are too many more."
            raise TooManyError("too_many_requests", detail, hint=_KEYS_HINT)
        if self._requests > 1 and self._bytes + size > limits.bytes:
            self._tell("bytes")
            detail = f"{self._bytes:,} bytes of requests are held, and this one is too large beside them."
            raise UnavailableError("overloaded", detail, hint=_HINT, retry_after=1)

    def reserve(self, key: str | None, size: int) -> None:
        self._bytes += size
        if key is not None:
            self._bytes_by_key[key] += size

    def release(self, key: str | None, size: int) -> None:
        self._requests -= 1
        self._bytes -= size
        if key is not None:
            self._by_key[key] -= 1
            self._bytes_by_key[key] -= size
            if not self._by_key[key]:
                del self._by_key[key], self._bytes_by_key[key]
