"""W3C Trace Context through the house, and OpenTelemetry where it is configured."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from edge_kit import IMAGE, Server, claimed, dataset_on_disk, serving, train
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from samples import tiny_zip

from app import tracing
from jobs.ledger import Ledger
from store.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (PARENT, True),
        ("01-" + PARENT[3:] + "-more", True),  # of a later version, which may say more
        (PARENT + "-more", False),
        (None, False),
        ("", False),
        (PARENT.upper(), False),
        ("ff" + PARENT[2:], False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        ("01-" + PARENT[3:] + "-" + "x" * 300, False),
    ],
)
def test_a_traceparent_is_taken_where_it_is_valid(header: str | None, valid: bool) -> None:
    assert tracing.read(header) == (header if valid else None)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": ""}, ()),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({"OTEL_TRACES_EXPORTER": "OTLP, console,otlp"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, ()),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, ()),
    ],
)
def test_traces_are_exported_where_the_standard_variables_ask_for_it(
    environment: dict[str, str], named: tuple[str, ...]
) -> None:
    assert tracing.exporters(environment) == named


def test_an_exporter_that_is_not_here_is_told_of_and_nothing_is_exported_in_its_stead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    assert tracing.telemetry(environment) is None
    assert [record.exporters for record in caplog.records] == [["zipkin"]]
    assert tracing.exporters({**environment, "OTEL_TRACES_EXPORTER": "zipkin,console"}) == ("console",)


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_METRICS_EXPORTER": "none"}, []),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["http/protobuf, not by grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, []),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, ["http/protobuf, not by http/json"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "console"}, []),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "none"}, ["OTEL_METRICS_EXPORTER is not followed"]),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, ["OTEL_LOGS_EXPORTER is not followed"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_a_protocol_and_signals_that_are_not_here_are_warned_of(
    caplog: pytest.LogCaptureFixture, environment: dict[str, str], warned: list[str]
) -> None:
    tracing.exporters({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", **environment})
    assert len(caplog.records) == len(warned)
    assert all(part in record.getMessage() for part, record in zip(warned, caplog.records, strict=True))


def test_without_them_nothing_that_records_or_exports_is_even_imported(tmp_path) -> None:
    code = (
        "import sys; from app.main import create_app; from store.settings import Settings; create_app(Settings()); "
        "ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'app.telemetry'); "
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment = {**kept, "RESNETD_DATA": str(tmp_path / "data")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert ended.stdout == b"[]\n"


def test_a_trace_reaches_the_log_and_the_record_of_its_job_and_the_job_that_its_upload_makes(
    server: Server, dataset: str, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="resnetd.access"):
        client = httpx.Client(base_url=server.url, headers={"traceparent": PARENT})
        with client:
            trained = train(client, dataset).json()["id"]
            imported = client.put("/v1/datasets", content=tiny_zip()).json()["job"]["id"]
    assert [ledger.get(job).traceparent for job in (trained, imported)] == [PARENT, PARENT]
    assert {record.traceparent for record in caplog.records} == {PARENT}
    plain = train(server.http, dataset).json()["id"]
    assert ledger.get(plain).traceparent is None


def test_a_claim_carries_the_trace(idle: Ledger, server: Server) -> None:
    dataset = dataset_on_disk(server.layout, "ds_traced")
    client = httpx.Client(base_url=server.url, headers={"traceparent": PARENT})
    with client:
        job_id = train(client, dataset).json()["id"]
    assert claimed(idle, job_id).traceparent == PARENT


class Collector:
    """What an OTLP exporter posted."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.arrived = threading.Event()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services.update(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.arrived.set()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """To which every server that starts from now on exports."""
    collecting = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collecting.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listening.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        yield collecting
        listening.shutdown()
        thread.join()


def test_a_request_is_a_span_below_the_callers_and_its_trace_goes_on_with_it(
    alone: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "cats")
    with serving(alone) as server, caplog.at_level(logging.INFO, logger="resnetd.access"):
        headers = {"traceparent": PARENT, "x-request-id": "mine"}
        assert server.http.post("/v1/classify", content=IMAGE, headers=headers).status_code == 200
        server.http.get("/nothing")
    assert collector.arrived.wait(20)
    mine = next(span for span in collector.spans if span.trace_id.hex() == TRACE)
    assert (mine.name, mine.parent_span_id.hex()) == ("POST /v1/classify", PARENT.split("-")[2])
    attributes = {each.key: each.value.string_value or each.value.int_value for each in mine.attributes}
    assert attributes["http.route"] == "/v1/classify"
    assert attributes["http.response.status_code"] == 200
    assert attributes["resnetd.request_id"] == "mine"
    assert any(span.name == "GET unmatched" for span in collector.spans)
    assert collector.services == {"cats"}
    told = [record.traceparent for record in caplog.records if getattr(record, "request_id", "") == "mine"]
    assert told == [f"00-{TRACE}-{mine.span_id.hex()}-01"]


def test_the_engines_stages_are_spans_in_the_order_in_which_they_were() -> None:
    code = """
import time
from app.telemetry import Telemetry
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
telemetry = Telemetry(exporter)
trace = telemetry.begin(None, method="PUT", path="/v1/classify", request_id="r")
trace.span.stages({"decode": 2.0, "queue": 1.0, "compute": 5.0, "total": 8.5}, model="toy", version=3)
trace.span.end(route="/v1/classify", status=503)
telemetry.close()
import json
print(json.dumps([[s.name, s.start_time, s.end_time, s.parent.span_id if s.parent else None, s.context.span_id,
                   s.status.status_code.name] for s in exporter.get_finished_spans()]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    spans = {name: rest for name, *rest in json.loads(ended.stdout)}
    assert list(spans) == ["decode", "queue", "compute", "engine", "PUT /v1/classify"]
    request, engine = spans["PUT /v1/classify"], spans["engine"]
    assert (engine[2], request[4]) == (request[3], "ERROR")
    assert [round((spans[stage][1] - spans[stage][0]) / 1e6) for stage in ("decode", "queue", "compute")] == [2, 1, 5]
    assert spans["decode"][1] == spans["queue"][0]
    assert spans["queue"][1] == spans["compute"][0]
    assert all(spans[stage][2] == engine[3] for stage in ("decode", "queue", "compute"))


def test_every_exporter_that_is_named_gets_each_span_and_the_callers_state_goes_on_with_it() -> None:
    code = """
import json
from app import telemetry
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
made = {name: InMemorySpanExporter() for name in ("otlp", "console")}
telemetry._EXPORTERS = {name: lambda exporter=exporter: exporter for name, exporter in made.items()}
begun = telemetry.Telemetry.from_environment({}, exporters=("otlp", "console"))
for parent, state in ((PARENT, ["a=1,b=2", "c=3"]), (None, ["a=1"]), (PARENT, ["no state"])):
    trace = begun.begin(parent, tracestate=state, method="PUT", path="/v1/classify", request_id="r")
    trace.span.stages({"total": 1.0}, model="toy", version=3)
    trace.span.end(route="/v1/classify", status=200)
begun.close()
print(json.dumps({name: [[span.name, span.context.trace_state.to_header()] for span in exporter.get_finished_spans()]
                  for name, exporter in made.items()}))
""".replace("PARENT", repr(PARENT))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    told = json.loads(ended.stdout)
    assert told["otlp"] == told["console"]
    states = {"PUT /v1/classify": [], "engine": [], "decode": []}
    for name, state in told["otlp"]:
        states.setdefault(name, []).append(state)
    assert set(map(tuple, states.values())) == {("a=1,b=2,c=3", "", "")}  # without a trace, and unreadable: none


def test_the_state_of_a_trace_comes_with_its_request(alone: Settings, collector: Collector) -> None:
    with serving(alone) as server:
        headers = [("traceparent", PARENT), ("tracestate", "vendor=1"), ("tracestate", "other=2")]
        assert server.http.get("/v1/models", headers=headers).status_code == 200
    assert collector.arrived.wait(20)
    assert [span.trace_state for span in collector.spans if span.trace_id.hex() == TRACE] == ["vendor=1,other=2"]
