"""An adoption from its spec to its model version."""

import os
import resource
from uuid import uuid4

import torch

from models import checkpoint_files
from models.manifest import Origin
from store.datasets import UPLOAD
from store.files import publish_dir, remove_tree, sha256_of
from store.layout import Layout
from worker.adopter.bundles import adopt_bundle
from worker.adopter.reading import format_of
from worker.adopter.sandbox import limit
from worker.adopter.task import AdoptSpec, Task
from worker.adopter.weights import adopt_tensors
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, Stop, emit
from worker.job_spec import read_job_spec
from worker.signs_of_life import SignsOfLife

_MOST_MEMORY = 24 * 2**30  # bytes; the largest network of the registry needs 2 GiB
_STEPS = ("read", "match", "compare", "write")


def adopt(arguments: JobArguments, stop: Stop) -> None:
    """Run the job to its end. Raises JobRefused for a file that is no model of a network here."""
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_DATA, _MOST_MEMORY)
    spec = read_job_spec(arguments.run_dir, AdoptSpec)
    upload = Layout(arguments.data_dir).job(spec.upload) / UPLOAD
    if not upload.is_file():
        raise JobRefused("upload_missing", "the uploaded file is gone", "Upload it again: POST /v1/models.")
    checkpoint_files.sweep(arguments.claim_dir)
    for number in range(arguments.claim + 1):  # of later claims nothing: this one may have lost the job
        remove_tree(arguments.run_dir / f"claim-{number}" / "model")
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # a training may have the other cores
    draft = arguments.claim_dir / f".model.{uuid4().hex}.tmp"
    draft.mkdir(parents=True)
    steps = _Steps(stop)
    try:
        with SignsOfLife(steps.say) as alive:
            task = Task(
                spec=spec,
                job=arguments.run_dir.name,
                upload=upload,
                origin=Origin(filename=spec.filename, sha256=sha256_of(upload), format=format_of(upload)),
                draft=draft,
                stop=stop,
                begin=lambda phase: steps.begin(phase, alive),
            )
            metrics = adopt_bundle(task) if task.origin.format == "bundle" else adopt_tensors(task)
            stop.check()
            publish_dir(draft, arguments.claim_dir / "model")
            steps.end()
    except BaseException:
        remove_tree(draft)
        raise
    emit("result", {"artifact": f"{arguments.claim_dir.name}/model", "metrics": metrics})


class _Steps:
    """Which step it is. Between two of them the job stops where that was asked for."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._phase, self._done = _STEPS[0], 0

    def begin(self, phase: str, alive: SignsOfLife) -> None:
        self._stop.check()
        alive.moved()
        self._phase, self._done = phase, _STEPS.index(phase)
        self.say()

    def end(self) -> None:
        self._done = len(_STEPS)

    def say(self) -> None:
        total = len(_STEPS)
        emit("progress", {"phase": self._phase, "done": self._done, "total": total, "fraction": self._done / total})
