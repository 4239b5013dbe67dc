"""What Prometheus reads, in base units. Labels are bounded: route templates, never addresses."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one HTTP process, in a registry of their own."""

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
        self.images = Counter(
            "inference_images_total", "Images by outcome.", ("model", "version", "outcome"), registry=self.registry
        )
        self.stages = {
            stage: Histogram(f"inference_{stage}_seconds", text, registry=self.registry, buckets=_SECONDS)
            for stage, text in (
                ("queue", "Time an image waited for its batch."),
                ("decode", "Time to decode and prepare a request's images."),
                ("compute", "Time of the forward pass."),
            )
        }
        self.jobs = Gauge("training_jobs", "Jobs by state.", ("state",), registry=self.registry)
        self.streams = Gauge("http_event_streams", "Open event streams.", registry=self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)
