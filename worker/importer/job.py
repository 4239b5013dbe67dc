"""One import, from its spec to the dataset folder that is to be published."""

import resource
from typing import Literal

from pydantic import BaseModel

from store.datasets import DESCRIPTOR, UPLOAD
from store.files import read_json, remove_tree
from store.layout import Layout
from store.settings import Settings
from worker.importer.importing import import_dataset
from worker.importer.limits import Limits
from worker.importer.progress import Progress
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, Stop, emit

# Far above the 150 MB that 60,000 CIFAR images need, also for a few threads on the largest images allowed.
_MOST_MEMORY = 6 * 2**30


class ImportSpec(BaseModel):
    """spec.json of an import job."""

    kind: Literal["import"]
    dataset: str
    name: str
    filename: str | None = None


def import_job(at: JobArguments, stop: Stop) -> None:
    """Raises JobRefused where the upload is gone, is no archive, or needs too much memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    layout = Layout(at.data_dir)
    spec = ImportSpec.model_validate(read_json(at.run_dir / "spec.json"))
    target = layout.dataset(spec.dataset)
    if (target / DESCRIPTOR).exists():  # an earlier claim published it and died before it could say so
        emit("result", {"artifact": f"{at.claim_dir.name}/dataset"})
        return
    for leftover in (*at.run_dir.glob("claim-*/dataset"), *at.run_dir.glob("claim-*/.*.tmp")):  # of killed claims
        remove_tree(leftover)
    upload = target / UPLOAD
    if not upload.exists():
        raise JobRefused("upload_missing", f"the upload of {spec.dataset} is gone", "Upload the dataset again.")
    artifact = at.claim_dir / "dataset"
    try:
        with Progress(stop) as progress:
            dataset = import_dataset(
                upload,
                artifact,
                dataset_id=spec.dataset,
                name=spec.name,
                limits=Limits.of(Settings()),
                progress=progress,
            )
    except MemoryError as error:
        remove_tree(artifact)
        message = f"the archive needs more than {_MOST_MEMORY // 2**30} GiB of memory"
        raise JobRefused("archive_too_large", message, "Split the archive.") from error
    except BaseException:
        remove_tree(artifact)
        raise
    emit("log", {"message": f"{dataset.report.images} images of {len(dataset.classes)} classes, {dataset.digest}"})
    emit("result", {"artifact": f"{at.claim_dir.name}/dataset"})
