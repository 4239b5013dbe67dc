"""What Prometheus reads, in base units. Labels are bounded: route templates, and the models that were asked lately.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder, prometheus_client counts in files there, one set for each process, as
`app/rows.py` does for model versions, and an answer is the sum over all of them, those that ended included: any process
may be asked. Without it, as in a process that was started by hand, each counts for itself. What engines and the ledger
tell is asked when somebody reads.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app.batch_tally import BatchTally
from app.inference.figures import EngineFigures
from app.rows import FOLDER
from app.version_metrics import SECONDS, VERSION, VersionMetrics

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # images


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
            buckets=SECONDS,
        )
        self.refused = Counter(
            "admission_refusals_total", "Requests refused before their work began.", ("reason",), registry=self.registry
        )
        self.streams = Gauge(
            "http_event_streams", "Open event streams.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.versions = VersionMetrics()
        self.batches = BatchTally()

    def render(self, *, jobs: Mapping[str, int], engines: Sequence[EngineFigures]) -> bytes:
        """The text format. `jobs`: how many there are in each state; empty where the ledger is away."""
        self.batches.total(engines)  # which those that ended cannot tell any more
        told = CollectorRegistry(auto_describe=False)
        told.register(self.versions)
        told.register(_Told(jobs, engines))
        return generate_latest(self._counted()) + generate_latest(told)

    def _counted(self) -> CollectorRegistry:
        folder = os.environ.get(FOLDER)
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
        ready = GaugeMetricFamily("inference_engine_ready", "1 where the engine answers.", labels=VERSION)
        restarts = CounterMetricFamily(
            "inference_engine_restarts", "Times that an engine ended by itself and was started again.", labels=VERSION
        )
        depth = GaugeMetricFamily("inference_queue_depth", "Images that the engine holds now.", labels=VERSION)
        batches = CounterMetricFamily("inference_batches", "Batches since the engine's start.", labels=VERSION)
        sizes = HistogramMetricFamily("inference_batch_size", "Images in a batch.", labels=VERSION)
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
