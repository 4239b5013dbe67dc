"""The files that a job made for download. What a client names is looked up in the job's record, never on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from app.problems import ConflictError, NotFoundError
from app.services.jobs import Jobs
from app.services.pages import part
from jobs.model import Job
from store import artifacts
from store.artifacts import MEDIA_TYPES, Artifact
from store.layout import Layout


@dataclass(frozen=True)
class Download:
    """A file to send, and what a client may call it."""

    path: Path
    artifact: Artifact
    filename: str


class Artifacts:
    def __init__(self, jobs: Jobs, layout: Layout) -> None:
        self._jobs = jobs
        self._layout = layout

    async def page(self, job_id: str, *, limit: int, after: str | None) -> tuple[Sequence[Artifact], str | None]:
        """By name, at most `limit` from behind the one called `after`, and the `after` of the next part, None at the
        end. None before a job has succeeded, and none of an import. Raises NotFoundError, InvalidError.
        """
        found = _of((await self._jobs.get(job_id)).job)
        return part(found, name=lambda each: each.name, limit=limit, after=after)

    async def find(self, job_id: str, name: str) -> Download:
        """Raises NotFoundError, and ConflictError while the job may still make files."""
        job = (await self._jobs.get(job_id)).job
        found = next((each for each in _of(job) if each.name == name), None)
        if found is None:
            raise _absent(job, name)
        made = job.result or {}
        path = artifacts.place(self._layout.job(job.id) / f"claim-{int(made['claim'])}") / found.name
        if not await anyio.to_thread.run_sync(path.is_file):
            raise NotFoundError(
                "artifact_gone", f"{name} of job {job.id} is no longer here.", hint="Ask for the job again."
            )
        of = f"{made['model']}-{made['version']}" if "model" in made else job.id  # a training may register nothing
        return Download(path, found, f"{of}-{found.name}")


def _of(job: Job) -> list[Artifact]:
    """As the record names them; only names of the table."""
    listed = [Artifact.model_validate(each) for each in (job.result or {}).get("artifacts", [])]
    return [each for each in listed if each.name in MEDIA_TYPES]


def _absent(job: Job, name: str) -> NotFoundError | ConflictError:
    if not job.ended:
        return ConflictError(
            "wrong_state",
            f"The job has made no files yet: it is {job.state}.",
            hint=f"Wait for it: GET /v1/jobs/{job.id}?wait=30",
            members={"state": job.state},
        )
    names = ", ".join(each.name for each in _of(job)) or "none"
    detail = f"Job {job.id} made no file {name[:80]!r}."
    return NotFoundError("artifact_not_found", detail, hint=f"Its files: {names}.")
