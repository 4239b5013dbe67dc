"""The process of an import job: `python -m worker.importer RUN_DIR [--claim N] [--data DIR]`."""

import argparse
import resource
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from store.datasets import DESCRIPTOR, UPLOAD
from store.files import read_json, remove_tree
from store.layout import Layout
from store.settings import Settings
from worker.importer.importing import import_dataset
from worker.importer.limits import Limits
from worker.importer.progress import Progress
from worker.job_process import JobRefused, Stop, emit, run

# Far above the 150 MB that 60,000 CIFAR images need, also for a few threads on the largest images allowed.
_MOST_MEMORY = 6 * 2**30


class ImportSpec(BaseModel):
    """spec.json of an import job."""

    kind: Literal["import"]
    dataset: str
    name: str
    filename: str | None = None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.importer", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="the job's folder, which holds spec.json")
    parser.add_argument("--claim", type=int, default=1, help="which claim of the job this is")
    parser.add_argument("--data", type=Path, help="the data directory (default: RUN_DIR/../..)")
    parser.add_argument("--device", default="auto", help="taken for the sake of one command line for all jobs; unused")
    return parser.parse_args()


def main(stop: Stop) -> None:
    args = arguments()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    run_dir = args.run_dir.resolve()
    layout = Layout(args.data or run_dir.parent.parent)
    spec = ImportSpec.model_validate(read_json(run_dir / "spec.json"))
    target = layout.dataset(spec.dataset)
    if (target / DESCRIPTOR).exists():  # an earlier claim published it and died before it could say so
        emit("result", {"artifact": f"claim-{args.claim}/dataset"})
        return
    for leftover in (*run_dir.glob("claim-*/dataset"), *run_dir.glob("claim-*/.*.tmp")):  # of killed claims
        remove_tree(leftover)
    upload = target / UPLOAD
    if not upload.exists():
        raise JobRefused("upload_missing", f"the upload of {spec.dataset} is gone", "Upload the dataset again.")
    artifact = run_dir / f"claim-{args.claim}" / "dataset"
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
    emit("result", {"artifact": f"claim-{args.claim}/dataset"})


if __name__ == "__main__":
    sys.exit(run(main))
