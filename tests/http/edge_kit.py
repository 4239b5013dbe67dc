"""A real uvicorn server in a thread, a real Redis, and engines that answer by rule (a fake of an interface of ours)."""

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import orjson
import uvicorn
from redis import RedisError
from running import REDIS_ADMIN, wait_for_redis

from app.inference.answers import Classified, EngineHealth, Explanations, Pictures, Tensor
from app.inference.client import Engines
from app.inference.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineOverloaded,
    EngineStarting,
    EngineUnavailable,
    RequestRefused,
    TooManyLabels,
)
from app.inference.protocol import (
    ImageError,
    ImageExplanation,
    ImageResult,
    Label,
    Notice,
    Output,
    Preprocessed,
    Timings,
)
from app.main import create_app
from app.protocol import HttpProtocol
from app.state import State
from benchmarks.manifests import lineage, manifest
from jobs.answers import Claim, JobNotFound, LeaseLost
from jobs.ledger import Ledger
from jobs.model import JobError, Lane
from models.catalog import ModelNotFound
from models.manifest import ModelDamagedError, Preprocessing
from resnetd import embedded_redis
from store.datasets import Dataset, ImageSummary, Report, Source, SplitSummary
from store.layout import Layout
from store.settings import Settings

CLASSES = ("cat", "dog", "frog")
IMAGE = b"\x89PNG a picture of a cat"
BAD_IMAGE = b"bad bytes"
TIMINGS = Timings(decode=1.0, queue=0.5, compute=2.0, total=3.6)


class RuleEngines(Engines):
    """Every image shows a cat; bytes that begin with `bad` are corrupt; some model names stand for refusals."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        super().__init__(layout, settings)
        self.ready = True
        self.asked: list[tuple[str | None, int, int]] = []
        self.entered = threading.Event()
        self.cancelled = threading.Event()

    async def classify(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        top_k: int = 5,
        outputs: Sequence[Output] = (),
        timeout: float,  # noqa: ASYNC109 - the interface's
    ) -> Classified:
        self.asked.append((model_ref, len(images), top_k))
        refusals = {
            "unknown": ModelNotFound("unknown", "models here: toy"),
            "starting": EngineStarting("starting@1 is still being loaded"),
            "gone": EngineUnavailable("gone@1 cannot be served"),
            "busy": EngineOverloaded("512 images wait"),
            "late": DeadlineExceeded("no answer within 30 s"),
            "broken": EngineFailed("the answer was no number"),
            "wide": TooManyLabels(images=2, top_k=900, most=4),
            "damaged": ModelDamagedError("the model.json of damaged@1 is damaged"),
        }
        if model_ref in refusals:
            raise refusals[model_ref]
        if model_ref == "bug":
            raise RuntimeError("a secret of the server")
        if model_ref == "endless":
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        results = tuple(self._one(index, image, top_k) for index, image in enumerate(images))
        good = sum(result.error is None for result in results)
        rows = np.arange(good * 3, dtype=np.float32).reshape(good, 3) / 10  # row i: 0.3 i, and on by tenths
        return Classified(
            model="toy",
            version=3,
            rows=[result.model_dump() for result in results],
            tensors={name: Tensor(shape=rows.shape, data=rows.tobytes()) for name in outputs},
            timings_ms=TIMINGS,
        )

    async def explain(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        class_index: int | None,
        overlay: bool,
        timeout: float,  # noqa: ASYNC109 - the interface's
    ) -> Explanations:
        answer = await self.classify(model_ref, images, timeout=timeout)
        if class_index is not None and class_index >= len(CLASSES):
            raise RequestRefused("class_index 7 is none of this model's")
        index = class_index or 0
        label = Label(label=CLASSES[index], class_index=index, probability=0.7)
        png = b"\x89PNG overlay" if overlay else b""
        results = tuple(
            ImageExplanation(index=each.index, error=each.error)
            if each.error
            else ImageExplanation(index=each.index, label=label, heatmap=((0.0, 1.0), (0.5, 0.0)), png=len(png))
            for each in answer.results
        )
        overlays = tuple(b"" if each.error else png for each in results)
        return Explanations(model="toy", version=3, results=results, overlays=overlays, timings_ms=TIMINGS)

    async def preprocess(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        timeout: float,  # noqa: ASYNC109 - the interface's
    ) -> Pictures:
        answer = await self.classify(model_ref, images, timeout=timeout)
        results = tuple(
            Preprocessed(index=each.index, error=each.error)
            if each.error
            else Preprocessed(index=each.index, warnings=each.warnings, shape=(2, 2, 3), sha256="ab" * 32, png=9)
            for each in answer.results
        )
        files = tuple(b"" if each.error else b"\x89PNG seen" for each in results)
        return Pictures(model="toy", version=3, results=results, files=files, timings_ms=TIMINGS)

    @staticmethod
    def _one(index: int, image: bytes, top_k: int) -> ImageResult:
        if image.startswith(b"bad"):
            return ImageResult(
                index=index, error=ImageError(code="corrupt_image", message="it is cut off", hint="resend")
            )
        probabilities = (0.7, 0.2, float("nan") if image.startswith(b"nan") else 0.1)
        labels = [Label(label=CLASSES[i], class_index=i, probability=probabilities[i]) for i in range(len(CLASSES))]
        warnings = (Notice(code="converted", message="from grey"),) if image.startswith(b"grey") else ()
        return ImageResult(index=index, top_k=tuple(labels[:top_k]), warnings=warnings)

    async def health(self) -> EngineHealth:
        if self.ready:
            return EngineHealth(ready=True, model="toy", version=3)
        return EngineHealth(ready=False, model="toy", version=3, reason="it is loading")


@dataclass
class Server:
    """A running HTTP process, as far as a test may tell."""

    url: str
    state: State
    engines: RuleEngines
    http: httpx.Client
    layout: Layout

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    layout = Layout(settings.data).create()
    engines = RuleEngines(layout, settings)
    app = create_app(settings, engines=engines)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    config = uvicorn.Config(
        app, http=HttpProtocol, ws="none", lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=20) as client:
            client.get("/livez").raise_for_status()
            yield Server(url, app.state.edge, engines, client, layout)
    finally:
        app.state.edge.jobs.feeds.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextlib.contextmanager
def own_redis(layout: Layout) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*embedded_redis.command(layout), *REDIS_ADMIN])
    try:
        wait_for_redis(process, layout)
        yield process
    finally:
        process.kill()
        process.wait()


def problem(answer: httpx.Response, status: int, code: str, **members: object) -> dict[str, object]:
    """The body of a problem answer, which is complete, with these further members."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    own = {"type", "title", "status", "detail", "instance", "code", "request_id", "hint", "errors"}
    assert {name: value for name, value in body.items() if name not in own} == members
    assert own <= set(body)
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert str(body["hint"] or "").strip(), f"{code} says nothing of what to do"
    assert body["type"] == f"urn:resnetd:problem:{code}"
    return dict(body)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`POST /v1/jobs` and the like, with what the OpenAPI document says of it."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def sse_messages(text: str) -> list[dict[str, Any]]:
    """The messages of an event stream: `id` where there is one, `event`, and `data` from JSON."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append({**fields, "data": orjson.loads(fields["data"])})
    return found


def dataset_on_disk(layout: Layout, dataset_id: str) -> str:
    """A dataset as an import leaves it, as far as the HTTP edge looks at it."""
    folder = layout.dataset(dataset_id)
    folder.mkdir()
    Dataset(
        id=dataset_id,
        name="pets",
        digest="sha256:" + "0" * 64,
        created_at=datetime.now(UTC),
        source=Source(format="image_folder"),
        classes=("cat", "dog"),
        splits={"train": SplitSummary(images=2, per_class=(1, 1))},
        image=ImageSummary(sizes={"32x32": 2}, modes={"RGB": 2}, uniform=True, height=32, width=32, channels=3),
        report=Report(images=2),
    ).write(folder)
    return dataset_id


def model_on_disk(layout: Layout, name: str, job_id: str) -> None:
    """A model version as far as the HTTP edge looks at it: its manifest."""
    folder = layout.models / name / "1"
    folder.mkdir(parents=True)
    preprocessing = Preprocessing(channels=1, height=28, width=28, resize=28, mean=(0.0,), std=(1.0,))
    made = lineage(job_id, dataset_name="pets", recipe="mnist")
    manifest(made, network="mnist/residual", preprocessing=preprocessing, weights=b"").write(folder)


def train(http: httpx.Client, dataset: str, **more: object) -> httpx.Response:
    key = more.pop("key", None)
    body = {"kind": "train", "dataset": dataset, "recipe": "mnist", **more}
    return http.post("/v1/jobs", json=body, headers={"Idempotency-Key": str(key)} if key else {})


_held: list[tuple[Ledger, Claim]] = []


def claimed(ledger: Ledger, job_id: str) -> Claim:
    """A claim on the job that is next, which has to be this one; `let_go` ends it after the test."""
    claim = ledger.claim(Lane.DEVICE, owner="test", token=uuid4().hex)
    assert claim is not None
    _held.append((ledger, claim))
    assert claim.job_id == job_id
    return claim


def let_go() -> None:
    """End what was claimed: a job comes back when its lease or its pause is over, into the middle of another test."""
    while _held:
        ledger, claim = _held.pop()
        with contextlib.suppress(JobNotFound, RedisError):
            try:
                ledger.fail(claim, JobError(code="swept", message="its test is over"))
            except LeaseLost:
                ledger.cancel(claim.job_id)
