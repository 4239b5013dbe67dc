"""API keys: random secrets of 256 bits, of which only SHA-256 hashes are kept (the entropy needs no slow hash).

A secret reads `rn_<id>_<random>`; the id finds the record, and the comparison takes the same time whatever differs.
"""

import fcntl
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from store.files import read_json, write_json
from store.layout import Layout


class Scope(StrEnum):
    PREDICT = "predict"  # classify, look at models
    TRAIN = "train"  # and datasets, jobs, aliases, loading and unloading
    METRICS = "metrics"  # what Prometheus reads, and nothing else
    ADMIN = "admin"  # everything

    def includes(self, wanted: "Scope") -> bool:
        return wanted in _INCLUDED[self]


_INCLUDED = {
    Scope.PREDICT: {Scope.PREDICT},
    Scope.TRAIN: {Scope.PREDICT, Scope.TRAIN},
    Scope.METRICS: {Scope.METRICS},
    Scope.ADMIN: set(Scope),
}


@dataclass(frozen=True)
class Key:
    id: str
    scope: Scope
    name: str
    sha256: str
    created_at: str


def create_key(layout: Layout, scope: Scope | str, name: str = "") -> str:
    """Make a key and return its secret, which is shown this once. Raises ValueError for an unknown scope."""
    key_id = secrets.token_hex(6)
    secret = f"rn_{key_id}_{secrets.token_urlsafe(32)}"
    key = Key(key_id, Scope(scope), name, _hash(secret), datetime.now(UTC).isoformat(timespec="seconds"))
    with _exclusive(layout):
        _write(layout, [*list_keys(layout), key])
    return secret


def list_keys(layout: Layout) -> list[Key]:
    """Every key, oldest first."""
    try:
        content = read_json(layout.keys)
    except FileNotFoundError:
        return []
    return [Key(**{**entry, "scope": Scope(entry["scope"])}) for entry in content["keys"]]


def revoke_key(layout: Layout, key_id: str) -> bool:
    """Remove a key; False where there is none with this id."""
    with _exclusive(layout):
        keys = list_keys(layout)
        kept = [key for key in keys if key.id != key_id]
        if len(kept) == len(keys):
            return False
        _write(layout, kept)
    return True


class KeyRing:
    """The keys as a running server sees them: read again when the file was replaced."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}

    def find(self, secret: str) -> Key | None:
        """The key of this secret, or None."""
        self._refresh()
        parts = secret.split("_", 2)
        candidate = self._keys.get(parts[1]) if len(parts) == 3 and parts[0] == "rn" else None
        expected = candidate.sha256 if candidate else "0" * 64
        return candidate if hmac.compare_digest(_hash(secret), expected) else None

    def _refresh(self) -> None:
        stamp = _stamp(self._layout.keys)
        if stamp != self._stamp:
            self._keys = {key.id: key for key in list_keys(self._layout)}
            self._stamp = stamp


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _write(layout: Layout, keys: list[Key]) -> None:
    entries: list[dict[str, Any]] = [vars(key) for key in keys]
    write_json(layout.keys, {"keys": entries})


@contextmanager
def _exclusive(layout: Layout) -> Iterator[None]:
    layout.locks.mkdir(parents=True, exist_ok=True)
    with (layout.locks / "keys.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
