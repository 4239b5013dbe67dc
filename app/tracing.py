"""W3C Trace Context: what a request came with goes on to the engine and into its job's record; and OpenTelemetry, where
the standard `OTEL_*` variables ask for it: a span for each request, and below it those of the engine's stages.

Otherwise nothing of OpenTelemetry is imported. What the variables mean is its SDK's matter, not ours.
"""

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from app.telemetry import Telemetry

log = logging.getLogger(__name__)

#: version, trace id, parent id, flags (https://www.w3.org/TR/trace-context/#traceparent-header)
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_MAX_LENGTH = 200
_EXPORTER = "OTEL_TRACES_EXPORTER"
_EXPORTERS = ("otlp", "console")  # that are here
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")  # the first that is set counts
_PROTOCOL = "http/protobuf"  # the one that is here
_OTHER_SIGNALS = ("OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")


class Span(Protocol):
    """One request under way, as somebody who watches sees it."""

    def stages(self, milliseconds: Mapping[str, float], *, model: str, version: int) -> None:
        """What an engine said about this request, which it has just answered."""

    def end(self, *, route: str, status: int) -> None: ...


class Trace:
    """The trace that a request belongs to: what is told to those who work for it, and its span, where there is one."""

    def __init__(self, traceparent: str | None, span: Span | None = None) -> None:
        self.traceparent = traceparent
        self.span = span
        self.milliseconds: Mapping[str, float] = {}

    def stages(self, milliseconds: Mapping[str, float], *, model: str, version: int) -> None:
        """An engine has just answered for this request, and says how long it took."""
        self.milliseconds = milliseconds
        if self.span is not None:
            self.span.stages(milliseconds, model=model, version=version)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace:
    """The trace of the request that this task works for."""
    return _current.get() or Trace(None)


def enter(trace: Trace) -> None:
    """From here on, this task works for the request of this trace. Each request has a task of its own."""
    _current.set(trace)


def read(traceparent: str | None) -> str | None:
    """A `traceparent` header that is valid; another one counts as none, as the standard has it."""
    if traceparent is None or len(traceparent) > _MAX_LENGTH:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    return None if found is None or (found[1] == "00" and found[2]) else traceparent


def exporters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Those that `OTEL_*` names and that are here, each once; where an endpoint is all, OTLP.

    Warns of others, and of a protocol and of signals that are not here: who asked for them would wait for nothing.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ()
    for variable in _OTHER_SIGNALS:
        if environment.get(variable, "").strip().lower() not in ("", "none"):
            log.warning("%s is not followed: traces alone are exported, and metrics are at /metrics", variable)
    found = _traces(environment)
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if "otlp" in found and protocol.strip().lower() != _PROTOCOL:
        log.warning("spans are exported by %s, not by %s: name an endpoint that takes it", _PROTOCOL, protocol)
    return found


def _traces(environment: Mapping[str, str]) -> tuple[str, ...]:
    given = environment.get(_EXPORTER, "").lower()
    names = {name.strip(): None for name in given.split(",") if name.strip()}
    if not names and any(environment.get(name) for name in _ENDPOINTS):
        return ("otlp",)
    unknown = [name for name in names if name not in (*_EXPORTERS, "none")]
    if unknown:
        log.warning("OTEL_TRACES_EXPORTER names what is not here: otlp or console", extra={"exporters": unknown})
    return tuple(name for name in names if name in _EXPORTERS)


def telemetry(environment: Mapping[str, str]) -> "Telemetry | None":
    """OpenTelemetry, where it is wanted; imported only then."""
    wanted = exporters(environment)
    if not wanted:
        return None
    from app.telemetry import Telemetry  # noqa: PLC0415 - see above

    return Telemetry.from_environment(environment, exporters=wanted)
