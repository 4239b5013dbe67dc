"""Requests as OpenTelemetry spans, exported as `OTEL_*` says. Imported only where that is wanted (`app/tracing.py`)."""

import time
from collections.abc import Callable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing import Trace

_STAGES = ("decode", "queue", "compute")  # in this order they follow each other; those of several images overlap
_EXPORTERS: Mapping[str, Callable[[], SpanExporter]] = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}
_PROPAGATOR = TraceContextTextMapPropagator()


class Telemetry:
    """Begins spans. `close` sends what is left."""

    def __init__(self, *exporters: SpanExporter, named: bool = False) -> None:
        """Each span goes to every exporter. `named`: the environment says what this service is called."""
        self._provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "resnetd"}))
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("resnetd.http")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, exporters: Sequence[str]) -> "Telemetry":
        """`exporters`: their names, as `app.tracing.exporters` gives them."""
        attributes = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        named = bool(environment.get("OTEL_SERVICE_NAME")) or f"{SERVICE_NAME}=" in attributes
        return cls(*(_EXPORTERS[name]() for name in exporters), named=named)

    def begin(
        self, traceparent: str | None, *, tracestate: Sequence[str] = (), method: str, path: str, request_id: str
    ) -> Trace:
        """A span for a request, below the caller's where it said so, in whose `tracestate` (its headers) it is, too."""
        carrier = {"traceparent": [traceparent], "tracestate": list(tracestate)} if traceparent else {}
        parent = _PROPAGATOR.extract(carrier)
        attributes = {"http.request.method": method, "url.path": path, "resnetd.request_id": request_id}
        span = self._tracer.start_span(method, context=parent, kind=SpanKind.SERVER, attributes=attributes)
        told: dict[str, str] = {}
        _PROPAGATOR.inject(told, trace.set_span_in_context(span))
        return Trace(told.get("traceparent"), RequestSpan(self._tracer, span, method))

    def close(self) -> None:
        self._provider.shutdown()


class RequestSpan:
    """One request under way."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, method: str) -> None:
        self._tracer = tracer
        self._span = span
        self._method = method

    def stages(self, milliseconds: Mapping[str, float], *, model: str, version: int) -> None:
        """A child for the engine and one for each stage in it, placed from its end backwards by what it measured."""
        now = time.time_ns()
        names: dict[str, str | int] = {"resnetd.model": model, "resnetd.version": version}
        start = now - _nanoseconds(milliseconds.get("total", 0.0))
        within = trace.set_span_in_context(self._span)
        engine = self._tracer.start_span("engine", context=within, start_time=start, attributes=names)
        below = trace.set_span_in_context(engine)
        for stage in _STAGES:
            length = _nanoseconds(milliseconds.get(stage, 0.0))
            child = self._tracer.start_span(stage, context=below, start_time=start)
            start = min(start + length, now)
            child.end(end_time=start)
        engine.end(end_time=now)

    def end(self, *, route: str, status: int) -> None:
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _nanoseconds(milliseconds: float) -> int:
    return int(milliseconds * 1e6)
