"""What a job was asked for: its spec.json, read as the job's process begins."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from worker.job_process import JobRefused

Spec = TypeVar("Spec", bound=BaseModel)


def read_job_spec(run_dir: Path, kind: type[Spec]) -> Spec:
    """spec.json in `run_dir`, as this kind of job has it. Raises JobRefused where there is none, or another one."""
    try:
        return kind.model_validate_json((run_dir / "spec.json").read_bytes())
    except FileNotFoundError as error:
        raise JobRefused("no_spec", f"{run_dir} holds no spec.json", "Give the folder of a job.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec.json"
        raise JobRefused("bad_spec", f"{where}: {first['msg']}", "Correct spec.json.") from error
