"""What Prometheus reads, in base units. Labels are bounded: route templates, and the first models that were asked.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder, prometheus_client counts in files there, one set for each process, and
an answer is the sum over all of them, those that ended included: any process may be asked. Without it, as in a process
that was started by hand, each counts for itself. What engines and the ledger tell is asked when somebody reads.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app.inference.figures import ANSWERED, Asked, EngineFigures
from app.inference.shadow import Shadowed

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # images
_MAX_VERSIONS = 200  # models' versions with figures of their own; later ones are `other`
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_VERSION = ("model", "version")
_STAGES = {
    "queue": "Time that a request's images waited for their batches.",
    "decode": "Time to decode and prepare a request's images.",
    "compute": "Time of the forward passes that a request was in.",
}

_Values = defaultdict[tuple[str, str], float]  # of one version, by the sample's name and its outcome


@dataclass(frozen=True)
class Counted:
    """Requests to the engines of one model version: those that were answered, others, and the images with a result.

    `seconds[stage]` of decode, queue and compute is how many requests had it, and how long it took them together;
    `last` is when one was answered last, in Unix time, 0 where none was.
    """

    answered: int
    failed: int
    images: int
    seconds: Mapping[str, tuple[int, float]]
    last: float


class Metrics:
    """The metrics of the HTTP processes, seen from one of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total", "Answered requests.", ("method", "route", "status"), registry=self.registry
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from the request's head to the answer's last byte.",
            ("method", "route"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.refused = Counter(
            "admission_refusals_total", "Requests refused before their work began.", ("reason",), registry=self.registry
        )
        self.asked = Counter(
            "inference_requests_total",
            "Requests to engines, by operation and outcome.",
            (*_VERSION, "operation", "outcome"),
            registry=self.registry,
        )
        self.images = Counter(
            "inference_images_total", "Images by outcome.", (*_VERSION, "outcome"), registry=self.registry
        )
        self.shadowed = Counter(
            "inference_shadow_images_total",
            "Images that a shadow got a copy of, by whether its likeliest label was the one served.",
            (*_VERSION, "shadow", "outcome"),
            registry=self.registry,
        )
        self.stages = {
            stage: Histogram(f"inference_{stage}_seconds", text, _VERSION, registry=self.registry, buckets=_SECONDS)
            for stage, text in _STAGES.items()
        }
        self.last = Gauge(
            "inference_last_timestamp_seconds",
            "Unix time at which an engine answered a request last.",
            _VERSION,
            registry=self.registry,
            multiprocess_mode="max",
        )
        self.streams = Gauge(
            "http_event_streams", "Open event streams.", registry=self.registry, multiprocess_mode="livesum"
        )
        self._versions: set[tuple[str, str]] = set()

    def count(self, asked: Asked) -> None:
        """One request to an engine and its outcome."""
        names = self._names(asked.model, asked.version)
        self.asked.labels(*names, asked.operation, asked.outcome).inc()
        if asked.outcome == ANSWERED:
            self.last.labels(*names).set_to_current_time()
        for outcome, images in (("classified", asked.good), ("rejected", asked.bad)):
            if images:
                self.images.labels(*names, outcome).inc(images)
        for stage, milliseconds in asked.milliseconds.items():
            if stage in self.stages:
                self.stages[stage].labels(*names).observe(milliseconds / 1000)

    def count_shadowed(self, shadowed: Shadowed) -> None:
        """One copy of a request, and what came of it."""
        names = self._names(shadowed.model, shadowed.version)
        _, shadow = self._names(shadowed.model, shadowed.shadow)
        for outcome, images in shadowed.images.items():
            self.shadowed.labels(*names, shadow, outcome).inc(images)

    def render(self, *, jobs: Mapping[str, int], engines: Iterable[EngineFigures]) -> bytes:
        """The text format. `jobs`: how many there are in each state; empty where the ledger is away."""
        told = CollectorRegistry(auto_describe=False)
        told.register(_Told(jobs, engines))
        return generate_latest(self._counted()) + generate_latest(told)

    def of_versions(self) -> dict[tuple[str, str], Counted]:
        """What all HTTP processes counted of each model and version; of what nobody asked for there is nothing."""
        found: defaultdict[tuple[str, str], _Values] = defaultdict(lambda: defaultdict(float))
        for metric in self._counted().collect():
            for sample in metric.samples:
                labels = sample.labels
                if "version" in labels:
                    found[labels["model"], labels["version"]][sample.name, labels.get("outcome", "")] += sample.value
        return {names: _of_version(told) for names, told in found.items()}

    def _counted(self) -> CollectorRegistry:
        folder = os.environ.get(_FOLDER)
        if folder is None:
            return self.registry
        for file in Path(folder).glob("gauge_live*.db"):  # of processes that were killed: their streams are gone
            pid = int(file.stem.rpartition("_")[2])
            if not Path(f"/proc/{pid}").exists():
                with suppress(FileNotFoundError):  # another process is just doing the same
                    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # it has no annotations
        together = CollectorRegistry()
        MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]  # likewise
        return together

    def _names(self, model: str, version: int) -> tuple[str, str]:
        names = model, str(version)
        if names not in self._versions:
            if len(self._versions) >= _MAX_VERSIONS:
                return "other", "other"
            self._versions.add(names)
        return names


def _of_version(told: _Values) -> Counted:
    asked = int(sum(value for (name, _), value in told.items() if name == "inference_requests_total"))
    answered = int(told["inference_requests_total", ANSWERED])
    names = {stage: f"inference_{stage}_seconds" for stage in _STAGES}
    return Counted(
        answered=answered,
        failed=asked - answered,
        images=int(told["inference_images_total", "classified"]),
        seconds={stage: (int(told[f"{name}_count", ""]), told[f"{name}_sum", ""]) for stage, name in names.items()},
        last=told["inference_last_timestamp_seconds", ""],
    )


class _Told:
    """What is asked at the moment of reading."""

    def __init__(self, jobs: Mapping[str, int], engines: Iterable[EngineFigures]) -> None:
        self._jobs = jobs
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("jobs", "Jobs of every kind by state.", labels=("state",))
        for state, count in self._jobs.items():
            jobs.add_metric((state,), count)
        yield jobs
        ready = GaugeMetricFamily("inference_engine_ready", "1 where the engine answers.", labels=_VERSION)
        restarts = CounterMetricFamily(
            "inference_engine_restarts", "Times that an engine ended by itself and was started again.", labels=_VERSION
        )
        depth = GaugeMetricFamily("inference_queue_depth", "Images that the engine holds now.", labels=_VERSION)
        batches = CounterMetricFamily("inference_batches", "Batches since the engine's start.", labels=_VERSION)
        sizes = HistogramMetricFamily("inference_batch_size", "Images in a batch.", labels=_VERSION)
        for engine in self._engines:
            names = engine.model, str(engine.version)
            ready.add_metric(names, 1 if engine.ready else 0)
            restarts.add_metric(names, engine.restarts)
            if engine.waiting is not None:
                depth.add_metric(names, engine.waiting)
                batches.add_metric(names, sum(engine.batches.values()))
                images = sum(size * count for size, count in engine.batches.items())
                sizes.add_metric(names, cumulative(engine.batches), sum_value=images)
        yield from (ready, restarts, depth, batches, sizes)


def cumulative(batches: Mapping[int, int]) -> list[tuple[str, float]]:
    """A histogram's buckets of {images: how many batches had so many}: (upper bound, batches up to it)."""
    upper = [(str(float(bound)), sum(n for size, n in batches.items() if size <= bound)) for bound in _BATCHES]
    return [*upper, ("+Inf", float(sum(batches.values())))]
