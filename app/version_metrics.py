"""What is counted of model versions: of every request to an engine, and of every copy for a shadow.

Images and the time of stages are those of inferences (`classify` and `infer`): an explanation computes other things,
and a preview nothing.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, product
from time import time

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from app.inference.figures import ANSWERED, Asked
from app.inference.protocol import ErrorCode
from app.inference.shadow import Shadowed
from app.rows import OTHERS, Row, Rows

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
VERSION = ("model", "version")
_MAX_VERSIONS = 200  # models' versions with figures of their own, in each process
_INFERENCES = ("classify", "infer")
_OPERATIONS = (*_INFERENCES, "explain", "preprocess")
_OUTCOMES = (ANSWERED, *(code.value for code in ErrorCode), "lost", "cancelled")
_IMAGES = ("classified", "rejected")
_STAGES = {
    "queue": "Time that an inference's images waited for their batches.",
    "decode": "Time to decode and prepare an inference's images.",
    "compute": "Time of the forward passes that an inference was in.",
}
_SHADOWED = ("agreed", "disagreed", "failed", "dropped")
_BUCKETS = len(SECONDS) + 1  # the last: slower than all bounds

#: Where each number stands in a version's row.
_REQUESTS = {pair: place for place, pair in enumerate(product(_OPERATIONS, _OUTCOMES))}
_IMAGES_AT = len(_REQUESTS)
_FAILED_AT = _IMAGES_AT + len(_IMAGES)
_STAGES_AT = {stage: _FAILED_AT + 1 + nth * (_BUCKETS + 1) for nth, stage in enumerate(_STAGES)}  # buckets, then a sum
_WIDTH = _FAILED_AT + 1 + len(_STAGES) * (_BUCKETS + 1)


@dataclass(frozen=True)
class Counted:
    """Inferences of one model version: those that were answered, others, and the images with a result.

    `seconds[stage]` of decode, queue and compute is how many inferences had it, and how long it took them together;
    `failed_seconds` is what those took that were not answered; `last` is when one was answered last, in Unix time, 0
    where none was.
    """

    answered: int
    failed: int
    failed_seconds: float
    images: int
    seconds: Mapping[str, tuple[int, float]]
    last: float


class VersionMetrics:
    """Counts in this process; tells of all."""

    def __init__(self) -> None:
        self._versions = Rows("versions", width=_WIDTH, limit=_MAX_VERSIONS)
        self._shadowed = Rows("shadowed", width=len(_SHADOWED), limit=_MAX_VERSIONS)

    def count(self, asked: Asked) -> None:
        """One request to an engine and its outcome."""
        outcome = asked.outcome if asked.outcome in _OUTCOMES else ErrorCode.INTERNAL.value
        amounts = {_REQUESTS[asked.operation, outcome]: 1.0}
        answered = outcome == ANSWERED and asked.operation in _INFERENCES
        if answered:
            amounts |= {_IMAGES_AT: asked.good, _IMAGES_AT + 1: asked.bad}
            for stage, first in _STAGES_AT.items():
                if stage in asked.milliseconds:
                    seconds = asked.milliseconds[stage] / 1000
                    amounts |= {first + bisect_left(SECONDS, seconds): 1.0, first + _BUCKETS: seconds}
        elif asked.operation in _INFERENCES:
            amounts[_FAILED_AT] = asked.seconds
        self._versions.add((asked.model, str(asked.version)), amounts, latest=time() if answered else 0.0)

    def count_shadowed(self, shadowed: Shadowed) -> None:
        """One copy of a request, and what came of it."""
        key = shadowed.model, str(shadowed.version), str(shadowed.shadow)
        self._shadowed.add(key, {_SHADOWED.index(outcome): images for outcome, images in shadowed.images.items()})

    def of_versions(self) -> tuple[dict[tuple[str, str], Counted], bool]:
        """What all HTTP processes counted of each model and version, and whether that is all that was ever asked.

        Where it is, nobody asked for a version that is not among them; else its figures may have been given up.
        """
        rows = self._versions.read()
        others = rows.pop(OTHERS, None)
        counted = {(name, version): _counted(row.numbers, row.latest) for (name, version), row in rows.items()}
        return counted, others is None

    def collect(self) -> Iterator[Metric]:
        asked = CounterMetricFamily(
            "inference_requests",
            "Requests to engines, by operation and outcome.",
            labels=(*VERSION, "operation", "outcome"),
        )
        images = CounterMetricFamily(
            "inference_images", "Images of inferences, by outcome.", labels=(*VERSION, "outcome")
        )
        failed = CounterMetricFamily(
            "inference_failed_seconds", "Time of inferences that were not answered.", labels=VERSION
        )
        stages = {
            stage: HistogramMetricFamily(f"inference_{stage}_seconds", text, labels=VERSION)
            for stage, text in _STAGES.items()
        }
        last = GaugeMetricFamily(
            "inference_last_timestamp_seconds", "Unix time at which an inference was answered last.", labels=VERSION
        )
        for names, row in _named(self._versions.read(), VERSION):
            for pair, place in _REQUESTS.items():
                if row.numbers[place]:
                    asked.add_metric((*names, *pair), row.numbers[place])
            for place, outcome in enumerate(_IMAGES, _IMAGES_AT):
                if row.numbers[place]:
                    images.add_metric((*names, outcome), row.numbers[place])
            if row.numbers[_FAILED_AT]:
                failed.add_metric(names, row.numbers[_FAILED_AT])
            for stage, first in _STAGES_AT.items():
                buckets = list(accumulate(row.numbers[first : first + _BUCKETS]))
                if buckets[-1]:
                    bounds = zip((*map(str, SECONDS), "+Inf"), buckets, strict=True)
                    stages[stage].add_metric(names, list(bounds), sum_value=row.numbers[first + _BUCKETS])
            if row.latest:
                last.add_metric(names, row.latest)
        yield from (asked, images, failed, *stages.values(), last)
        yield self._copies()

    def _copies(self) -> Metric:
        text = "Images that a shadow got a copy of, by whether its likeliest label was the one served."
        labels = (*VERSION, "shadow")
        copies = CounterMetricFamily("inference_shadow_images", text, labels=(*labels, "outcome"))
        for names, row in _named(self._shadowed.read(), labels):
            for outcome, count in zip(_SHADOWED, row.numbers, strict=True):
                if count:
                    copies.add_metric((*names, outcome), count)
        return copies


def _named(rows: Mapping[tuple[str, ...], Row], labels: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Row]]:
    for key, row in rows.items():
        yield key or ("other",) * len(labels), row


def _counted(numbers: npt.NDArray[np.float64], last: float) -> Counted:
    asked = {pair: int(numbers[place]) for pair, place in _REQUESTS.items() if pair[0] in _INFERENCES}
    answered = sum(count for (_, outcome), count in asked.items() if outcome == ANSWERED)
    return Counted(
        answered=answered,
        failed=sum(asked.values()) - answered,
        failed_seconds=float(numbers[_FAILED_AT]),
        images=int(numbers[_IMAGES_AT]),
        seconds={
            stage: (int(numbers[first : first + _BUCKETS].sum()), float(numbers[first + _BUCKETS]))
            for stage, first in _STAGES_AT.items()
        },
        last=last,
    )
