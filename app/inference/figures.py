"""What is counted of the way to the engines, as it travels from where it happens to where it is shown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

ANSWERED = "answered"


@dataclass(frozen=True)
class Asked:
    """One request to an engine: which version, what was asked, and how it ended.

    `outcome` is `answered`, an error's code (`overloaded`, `deadline`, …; the first may have been foreseen, without the
    engine being asked), `lost` (the engine died) or `cancelled` (the client went away). `good` images have a result,
    `bad` ones an error of their own. `seconds` is how long it took, 0 where that was foreseen.
    """

    model: str
    version: int
    operation: str
    outcome: str
    good: int = 0
    bad: int = 0
    milliseconds: Mapping[str, float] = field(default_factory=dict)  # of each stage: decode, queue, compute
    seconds: float = 0.0


Watch = Callable[[Asked], None]


@dataclass(frozen=True)
class EngineFigures:
    """What one engine tells of itself; `waiting` (images held now) is None where it does not answer.

    `batches[size]` is how many batches of so many images it has computed since its start; `process` is a name that no
    other process of an engine has.
    """

    model: str
    version: int
    ready: bool
    restarts: int
    waiting: int | None = None
    batches: Mapping[int, int] = field(default_factory=dict)
    process: str = ""


@dataclass
class Watched:
    """What is known of a request to an engine: until it was answered, that whoever waited for it went away."""

    outcome: str = "cancelled"
    header: dict[str, Any] | None = None
    began: float = field(default_factory=monotonic)

    def asked(self, name: str, version: int, op: str) -> Asked:
        header, seconds = self.header, monotonic() - self.began
        if header is None:
            return Asked(name, version, op, self.outcome, seconds=seconds)
        if header.get("error") is not None:
            return Asked(name, version, op, str(header["error"]["code"]), seconds=seconds)
        timings = header.get("timings_ms", {})
        if op == "infer":  # tensors are all good, or the request is refused
            return Asked(name, version, op, ANSWERED, header["tensors"][0]["shape"][0], 0, timings, seconds)
        results = header.get("results", ())
        bad = sum(1 for result in results if result.get("error") is not None)
        return Asked(name, version, op, ANSWERED, len(results) - bad, bad, timings, seconds)
