"""The client's calls about jobs: asked for, looked at, ordered about, followed, and what they made."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from resnetd.counted import ignore
from resnetd.download import save
from resnetd.errors import Problem, Unreachable
from resnetd.event_stream import Event, tail
from resnetd.transport import Json, Transport, given, problem_of, segment

ENDED = frozenset({"succeeded", "failed", "cancelled"})
_PASSING = frozenset({502, 503, 504})  # refusals that a stream outwaits: a part is being started again
_PLAN_SECONDS = 90.0  # for which the server waits for a worker that is very busy
_POLL_SECONDS = 30.0  # for which `wait` asks the server to wait, again and again


def _train_body(dataset: str, recipe: str, overrides: Mapping[str, Any] | None) -> Json:
    return {"kind": "train", "dataset": dataset, "recipe": recipe, "overrides": dict(overrides or {})}


class JobCalls(Transport):
    """Trainings, evaluations and exports; `events` and `history` tell how each goes."""

    def train(
        self,
        dataset: str,
        *,
        recipe: str,
        overrides: Mapping[str, Any] | None = None,
        register_as: str | None = None,
        alias: str | None = None,
        **terms: Any,  # noqa: ANN401 - each its own
    ) -> Json:
        """Submit a train job. `terms`: those of `submit`."""
        request = {"dataset": dataset, "recipe": recipe, "overrides": dict(overrides or {})}
        named = {"register_as": register_as, "alias": alias}
        return self.submit("train", request | given(named), **terms)

    def plan(
        self,
        dataset: str,
        *,
        recipe: str,
        overrides: Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
    ) -> Json:
        """What a train job would be: cost, speed, memory, problems. Nothing is queued. Takes seconds."""
        body = _train_body(dataset, recipe, overrides) | given({"max_seconds": max_seconds})
        return self._json(self._plan(body))

    def plan_curve(self, dataset: str, *, recipe: str, overrides: Mapping[str, Any] | None = None) -> bytes:
        """The learning rate over a train job, as SVG."""
        body, headers = _train_body(dataset, recipe, overrides), {"Accept": "image/svg+xml"}
        return self._plan(body, headers).content

    def _plan(self, body: Json, headers: Mapping[str, str] | None = None) -> httpx.Response:
        timeout = self._timeout_beyond(_PLAN_SECONDS)
        return self._request("POST", "/v1/jobs/plan", json=body, headers=headers, timeout=timeout, repeat=True)

    def evaluate(
        self,
        model: str,
        dataset: str,
        *,
        split: str = "test",
        **terms: Any,  # noqa: ANN401 - each its own
    ) -> Json:
        """Submit an evaluation of a model version, the one that is meant now. `terms`: those of `submit`."""
        return self.submit("evaluate", {"model": model, "dataset": dataset, "split": split}, **terms)

    def export(
        self,
        model: str,
        *,
        format: str = "bundle",  # noqa: A002 - the field's name
        **terms: Any,  # noqa: ANN401 - each its own
    ) -> Json:
        """Submit an export of a model version: `bundle`, `torch_export` or `onnx`. `terms`: those of `submit`."""
        return self.submit("export", {"model": model, "format": format}, **terms)

    def submit(
        self,
        kind: str,
        request: Mapping[str, Any],
        *,
        priority: str | None = None,
        max_seconds: float | None = None,
        webhook: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Submit a job: `train`, `evaluate` or `export`, with that kind's fields.

        Sent again where that may help, under one Idempotency-Key: never two jobs. Who comes back after a failure sends
        the error's `idempotency_key`. `webhook` is `{"url", "events", "secret"}`, of which the url is enough.
        """
        terms = {"priority": priority, "max_seconds": max_seconds, "webhook": webhook}
        body = {"kind": kind, **request, **given(terms)}
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json(self._request("POST", "/v1/jobs", json=body, headers=headers, repeat=True))

    def jobs(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        priority: str | None = None,
        dataset: str | None = None,
        model: str | None = None,
        archived: bool = False,
    ) -> Json:
        """A page, newest first. `state`, `kind` and `priority` may name several, with commas between.

        `dataset` means the jobs that import or read it, `model` those that make, measure or export it, any version or
        one (`name@3`). `archived`: every job that has ended, however long ago, as the disk has it.
        """
        filters = {"state": state, "kind": kind, "priority": priority, "dataset": dataset, "model": model}
        return self._page("/v1/jobs", limit, after, **filters, archived="true" if archived else None)

    def job(self, job_id: str, *, wait: float | None = None) -> Json:
        """The job now; with `wait`, once it has ended, at the latest after so many seconds (60 at most)."""
        return self._get(f"/v1/jobs/{segment(job_id)}", given({"wait": wait}), wait=wait or 0.0)

    # Each counts once under one Idempotency-Key, as `submit` does.

    def cancel(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        return self._verb(job_id, "cancel", idempotency_key)

    def pause(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        return self._verb(job_id, "pause", idempotency_key)

    def resume(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        return self._verb(job_id, "resume", idempotency_key)

    def finish(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        """Stop a training here and keep the epoch that its `keep` names: the best so far, or the last whole one."""
        return self._verb(job_id, "finish", idempotency_key)

    def checkpoint(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        """Have a training write a checkpoint now."""
        return self._verb(job_id, "checkpoint", idempotency_key)

    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        """Retry a job that failed or was cancelled; the new job."""
        return self._verb(job_id, "retry", idempotency_key)

    def change(self, job_id: str, changes: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        """Other `lr`, `epochs`, `patience` or `priority` for a job under way."""
        path, headers = f"/v1/jobs/{segment(job_id)}", {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json(self._request("PATCH", path, json=dict(changes), headers=headers, repeat=True))

    def delete_job(self, job_id: str) -> None:
        """An ended job with its files."""
        self._request("DELETE", f"/v1/jobs/{segment(job_id)}", repeat=True)

    def deliveries(self, job_id: str) -> Json:
        """How a job's deliveries went: `data`, the attempts, newest first, and what is `pending`."""
        return self._get(f"/v1/jobs/{segment(job_id)}/deliveries")

    def redeliver(self, job_id: str, delivery: str) -> Json:
        """Send a delivery again, under the same id; the deliveries as they are then."""
        path = f"/v1/jobs/{segment(job_id)}/deliveries/{segment(delivery)}/redeliver"
        return self._json(self._request("POST", path, repeat=True))

    def _verb(self, job_id: str, verb: str, idempotency_key: str | None) -> Json:
        path, headers = f"/v1/jobs/{segment(job_id)}/{verb}", {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json(self._request("POST", path, headers=headers, repeat=True))

    def events(self, job_id: str, *, after: str | None = None, patience: float = 120.0) -> Iterator[Event]:
        """Every event of a job, as it happens, from behind event `after` to its last.

        Connects again where the connection breaks and goes on behind the last event it gave, so that none is missed
        and none comes twice. Raises Unreachable after `patience` seconds without a connection.
        """
        last, broken_since = after or "", None
        while True:
            before = last
            try:
                for event in tail(self._http, job_id, last):
                    broken_since = None
                    if event is None:
                        continue
                    last = event.id
                    yield event
                    if event.type in ENDED:
                        return
                if last == before and self.job(job_id)["state"] in ENDED:
                    return  # `after` was the last event already
            except (httpx.TransportError, Unreachable, Problem) as error:
                if isinstance(error, Problem) and error.status not in _PASSING:
                    raise
                broken_since = broken_since or time.monotonic()
                if time.monotonic() - broken_since > patience:
                    raise Unreachable(self.server, str(error)) from error
            time.sleep(0.25)

    def history(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """The events of a job so far, from behind event `after`."""
        more = True
        while more:
            page = self._page(f"/v1/jobs/{segment(job_id)}/events", 200, after)
            for each in page["data"]:
                yield Event(id=each["id"], type=each["type"], data=each["data"])
            more, after = page["has_more"], page["next"]

    def artifacts(self, job_id: str) -> list[Json]:
        """The files that a job made: `name`, `bytes`, `media_type`, `sha256`, `href` of each."""
        return list(self._get(f"/v1/jobs/{segment(job_id)}/artifacts")["data"])

    def download(
        self, artifact: Mapping[str, Any], target: str | Path, *, on_bytes: Callable[[int], None] = ignore
    ) -> None:
        """Write one of `artifacts` to `target`: whole, its SHA-256 checked, going on where the connection breaks."""
        save(self._http, artifact, Path(target), refuse=problem_of, on_bytes=on_bytes)

    def wait(self, job_id: str, timeout: float | None = None) -> Json:
        """The job, once it has ended, however it ended.

        Raises the builtin TimeoutError where it has not after `timeout` seconds, and the job goes on. A paused job
        does not end by itself, nor does a queued one where no worker is.
        """
        if timeout is None:
            for _ in self.events(job_id):
                pass
            return self.job(job_id)
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            job = self.job(job_id, wait=min(max(left, 0.0), _POLL_SECONDS))
            if job["state"] in ENDED:
                return job
            if left <= 0.0:
                paused = ", and stays so until it is resumed" if job["state"] == "paused" else ""
                raise TimeoutError(f"Job {job_id} has not ended within {timeout:g} s: it is {job['state']}{paused}.")
