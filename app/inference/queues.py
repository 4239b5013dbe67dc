"""What one HTTP process has under way, for each engine and each kind of work that waits for no other kind there."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from app.inference.limits import Limits
from app.inference.pace import Queue
from app.inference.protocol import TensorInput

_MAX_QUEUES = 128  # of versions that are asked or were
_FULL_SECONDS = 0.05  # for which an engine that was full is believed to be full: its queue is far longer than that


class Kind(StrEnum):
    """Work that an engine has places and a pace of its own for (`app/engine/admission.py`)."""

    SERVED = "served"  # files and pixels, in the batches of the runtime that serves
    NORMALISED = "normalised"  # the network's own input, in batches of the float32 network
    EXPLAINED = "explained"
    PREPARED = "prepared"


_SHOWN = frozenset({Kind.EXPLAINED, Kind.PREPARED})


def kinds_of(op: str) -> tuple[Kind, ...]:
    """Those that a request of this operation may be of, as long as its input is not known."""
    if op == "infer":
        return Kind.SERVED, Kind.NORMALISED
    return ({"explain": Kind.EXPLAINED, "preprocess": Kind.PREPARED}.get(op, Kind.SERVED),)


def kind_of(op: str, fields: Mapping[str, Any]) -> Kind:
    """That of a request, by its operation and its fields."""
    return Kind.NORMALISED if fields.get("input") == TensorInput.NORMALISED else kinds_of(op)[0]


class Queues:
    """Those of one HTTP process. Made when they are asked for; idle ones go when there are many."""

    def __init__(self, limits: Limits) -> None:
        """`limits` are an engine's for classification."""
        self._limits = limits
        self._queues: dict[tuple[str, int, Kind], Queue] = {}

    def of(self, name: str, version: int, kind: Kind) -> Queue:
        key = (name, version, kind)
        found = self._queues.get(key)
        if found is None:
            if len(self._queues) >= _MAX_QUEUES:
                self._queues = {key: each for key, each in self._queues.items() if not each.idle}
            found = self._queues[key] = Queue(self._limits.shown if kind in _SHOWN else self._limits)
        return found

    def full(self, name: str, version: int, kind: Kind, *, images: int, size: int, patience: float) -> None:
        """An engine has just said that it has no place for so many images and bytes of a kind, or not in time."""
        self.of(name, version, kind).full(images, size, patience=patience, seconds=_FULL_SECONDS)
