"""Clients as the world has them: they repeat what failed, come back to cut streams, and write down what they saw."""

import asyncio
import hashlib
import random
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import orjson
from history import History
from stack import DATASET

TERMINAL = {"succeeded", "failed", "cancelled"}
RETRY_SECONDS = 0.25
UNAVAILABLE = {500, 502, 503, 504}


def training(
    *,
    seed: int,
    epochs: int = 2,
    steps: int = 20,
    step_seconds: float = 0.001,
    checkpoint_seconds: float = 0.05,
    model: str | None = None,
) -> dict[str, Any]:
    """The request for a toy training of `epochs` × `steps` steps (see `toy_trainer`)."""
    overrides: dict[str, float] = {"seed": seed, "epochs": epochs, "batch_size": steps, "weight_decay": step_seconds}
    overrides |= {"checkpoint_seconds": checkpoint_seconds, "warmup_epochs": 0}
    asked = {"kind": "train", "dataset": DATASET, "recipe": "fashion-mnist-small", "overrides": overrides}
    return asked | ({"register_as": model} if model else {})


@dataclass(frozen=True)
class Answer:
    """`status` 0: nobody knows whether it was done."""

    status: int
    body: dict[str, Any]


class Client:
    def __init__(self, url: str, history: History, name: str, *, timeout: float = 10.0) -> None:
        self.history, self.name = history, name
        # A connection for each request: what is killed or cut must hurt one request, not a pool.
        limits = httpx.Limits(max_keepalive_connections=0, max_connections=None)
        self.http = httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False)

    def move_to(self, url: str) -> None:
        """Ask there from now on."""
        self.http.base_url = httpx.URL(url)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def note(self, type: str, op: str, **more: Any) -> None:  # noqa: A002 - the line's own name for it
        self.history.add(type, op, client=self.name, **more)

    async def submit(self, asked: dict[str, Any], *, key: str | None = None, seconds: float = 120.0) -> str | None:
        """Ask until it is answered; the job's id, None where it was refused or nobody answered within `seconds`."""
        key = key or uuid4().hex
        digest = hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        op = {"key": key, "digest": digest}
        self.note("invoke", "submit", **op, asked=asked)
        answer = await self._insist("POST", "/v1/jobs", seconds, json=asked, headers={"Idempotency-Key": key})
        if answer.status == httpx.codes.ACCEPTED:
            self.note("ok", "submit", **op, job=answer.body["id"])
            return str(answer.body["id"])
        self.note("info" if answer.status == 0 else "fail", "submit", **op, status=answer.status, body=answer.body)
        return None

    async def verb(self, job: str, verb: str, *, seconds: float = 120.0) -> Answer:
        """cancel, pause, resume, finish, checkpoint, retry: repeated until it is answered."""
        return await self._noted(verb, job, "POST", f"/v1/jobs/{job}/{verb}", seconds)

    async def patch(self, job: str, changes: dict[str, Any], *, seconds: float = 120.0) -> Answer:
        return await self._noted("patch", job, "PATCH", f"/v1/jobs/{job}", seconds, json=changes)

    async def delete(self, job: str, *, seconds: float = 120.0) -> Answer:
        return await self._noted("delete", job, "DELETE", f"/v1/jobs/{job}", seconds)

    async def _noted(self, op: str, job: str, method: str, path: str, seconds: float, **more: Any) -> Answer:
        self.note("invoke", op, job=job)
        headers = {"Idempotency-Key": uuid4().hex}
        answer = await self._insist(method, path, seconds, headers=headers, **more)
        how = {0: "info", httpx.codes.ACCEPTED: "ok", httpx.codes.OK: "ok", httpx.codes.NO_CONTENT: "ok"}
        told = {name: answer.body.get(name) for name in ("id", "state", "code")}
        self.note(how.get(answer.status, "fail"), op, job=job, status=answer.status, **told)
        return answer

    async def upload(self, archive: bytes, *, name: str, seconds: float = 120.0) -> str | None:
        """Send a dataset; the id of the job that imports it."""
        body = await self._upload("/v1/datasets", archive, name=name, seconds=seconds)
        return None if body is None else str(body["job"]["id"])

    async def bring(self, model: bytes, *, name: str, seconds: float = 120.0) -> str | None:
        """Send a model's file; the id of the job that adopts it."""
        body = await self._upload("/v1/models", model, name=name, seconds=seconds)
        return None if body is None else str(body["id"])

    async def _upload(self, path: str, content: bytes, *, name: str, seconds: float) -> dict[str, Any] | None:
        key = uuid4().hex
        self.note("invoke", "submit", key=key, digest=name)
        headers = {"Idempotency-Key": key}
        answer = await self._insist("POST", f"{path}?name={name}", seconds, content=content, headers=headers)
        if answer.status != httpx.codes.ACCEPTED:
            self.note("info" if answer.status == 0 else "fail", "submit", key=key, digest=name, status=answer.status)
            return None
        job = str(answer.body["job"]["id"] if "job" in answer.body else answer.body["id"])
        self.note("ok", "submit", key=key, digest=name, job=job)
        return answer.body

    async def ask(self, method: str, path: str, *, key: str, json: Any) -> Answer:
        """A request that the history does not hold: for what must be refused."""
        return await self._insist(method, path, 60.0, json=json, headers={"Idempotency-Key": key})

    async def get(self, job: str, *, wait: float = 0.0, seconds: float = 120.0) -> dict[str, Any]:
        path = f"/v1/jobs/{job}" + (f"?wait={wait:g}" if wait else "")
        answer = await self._insist("GET", path, seconds, timeout=wait + 10.0)
        if answer.status != httpx.codes.OK:
            raise LookupError(f"{path}: {answer.status} {answer.body}")
        return answer.body

    async def wait(self, job: str, *, seconds: float) -> dict[str, Any] | None:
        """The job once it has ended, None where it does not within `seconds`."""
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            found = await self.get(job, wait=min(20.0, left))
            if found["state"] in TERMINAL:
                return found
        return None

    async def pages(self, path: str) -> list[dict[str, Any]]:
        """All entries of a paged list."""
        found: list[dict[str, Any]] = []
        after = ""
        headers = {"Accept": "application/json"}  # of events: no stream
        while True:
            joint = "&" if "?" in path else "?"
            answer = await self._insist("GET", f"{path}{joint}limit=200{after}", 60.0, headers=headers)
            if answer.status != httpx.codes.OK:
                raise LookupError(f"{path}: {answer.status} {answer.body}")
            found += answer.body["data"]
            if not answer.body["has_more"]:
                return found
            after = f"&after={answer.body['next']}"

    async def watch(self, job: str, *, seconds: float = 600.0) -> list[str]:
        """Follow a job's events to their end, through every cut; the ids in the order in which they came."""
        seen: list[str] = []
        cuts = 0
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            try:
                if await self._stream(job, seen):
                    self.note("ok", "watch", job=job, ids=seen, cuts=cuts)
                    return seen
            except (httpx.HTTPError, OSError):
                pass
            cuts += 1
            await asyncio.sleep(random.uniform(0.01, 0.2))
        self.note("info", "watch", job=job, ids=seen, cuts=cuts)
        return seen

    async def _stream(self, job: str, seen: list[str]) -> bool:
        """One connection; True when `event: end` came."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": seen[-1]} if seen else {})}
        timeout = httpx.Timeout(10.0, read=40.0)
        async with self.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=timeout) as answer:
            if answer.status_code != httpx.codes.OK:
                return False
            event_id = None
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    event_id = line.removeprefix("id: ")
                elif line == "event: end":
                    return True
                elif line == "" and event_id is not None:  # an event counts once it is whole
                    seen.append(event_id)
                    event_id = None
        return False

    async def _insist(self, method: str, path: str, seconds: float, **more: Any) -> Answer:
        """Repeat while nobody answers or the answer is that the service is away."""
        until = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                answer = await self.http.request(method, path, **more)
                if answer.status_code not in UNAVAILABLE:
                    return Answer(answer.status_code, answer.json() if answer.content else {})
            except (httpx.HTTPError, OSError, ValueError):
                pass
            if asyncio.get_running_loop().time() > until:
                return Answer(0, {})
            await asyncio.sleep(random.uniform(0.5, 1.5) * RETRY_SECONDS)
