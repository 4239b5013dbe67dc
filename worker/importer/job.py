"""One import, from its spec to the dataset folder that is to be published."""

import resource
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel

from models import checkpoint_files
from store.datasets import DESCRIPTOR, UPLOAD
from store.files import publish_dir, remove_tree
from store.layout import Layout
from store.settings import Settings
from worker.importer.importing import import_dataset
from worker.importer.limits import Limits
from worker.importer.progress import Progress
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, Stop, emit
from worker.job_spec import read_job_spec

# Far above the 150 MB that 60,000 CIFAR images need, also for a few threads on the largest images allowed.
_MOST_MEMORY = 6 * 2**30


class ImportSpec(BaseModel):
    """spec.json of an import job."""

    kind: Literal["import"]
    dataset: str
    name: str
    filename: str | None = None


def import_job(at: JobArguments, stop: Stop) -> None:
    """Raises JobRefused where the spec is none, the upload is gone, is no archive, or needs too much memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    layout = Layout(at.data_dir)
    spec = read_job_spec(at.run_dir, ImportSpec)
    target = layout.dataset(spec.dataset)
    if (target / DESCRIPTOR).exists():  # an earlier claim published it and died before it could say so
        emit("result", {"artifact": f"{at.claim_dir.name}/dataset"})
        return
    checkpoint_files.sweep(at.claim_dir)
    for number in range(at.claim + 1):  # of later claims nothing: this one may have lost the job
        remove_tree(at.run_dir / f"claim-{number}" / "dataset")
    upload = target / UPLOAD
    if not upload.exists():
        raise JobRefused("upload_missing", f"the upload of {spec.dataset} is gone", "Upload the dataset again.")
    draft = at.claim_dir / f".dataset.{uuid4().hex}.tmp"
    try:
        with Progress(stop) as progress:
            dataset = import_dataset(
                upload,
                draft,
                dataset_id=spec.dataset,
                name=spec.name,
                limits=Limits.of(Settings()),
                progress=progress,
            )
            publish_dir(draft, at.claim_dir / "dataset")
    except MemoryError as error:
        remove_tree(draft)
        message = f"the archive needs more than {_MOST_MEMORY // 2**30} GiB of memory"
        raise JobRefused("archive_too_large", message, "Split the archive.") from error
    except BaseException:
        remove_tree(draft)
        raise
    emit("log", {"message": f"{dataset.report.images} images of {len(dataset.classes)} classes, {dataset.digest}"})
    emit("result", {"artifact": f"{at.claim_dir.name}/dataset"})
