"""An evaluation from its spec to its report: model, images, logits, figures, drawings."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import checkpoint_files, golden, runtime
from models.runtime import ModelDamagedError, Runtime
from store import artifacts
from store.files import write_atomic
from store.layout import Layout
from worker.evaluator import documents, report
from worker.evaluator.predictions import Predictions
from worker.evaluator.progress import Progress
from worker.evaluator.reader import batches
from worker.evaluator.subject import Subject, read_subject
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, JobStopped, Stop, emit
from worker.signs_of_life import SignsOfLife
from worker.trainer.metrics import Logits
from worker.trainer.pixels import prepared

_KEEP_SECONDS = 2.0


def evaluate(arguments: JobArguments, stop: Stop) -> None:
    """Run the job to its end, from what earlier claims computed."""
    subject = read_subject(arguments.run_dir, Layout(arguments.data_dir))
    checkpoint_files.sweep(arguments.claim_dir)
    predictions = Predictions(arguments.run_dir, arguments.claim_dir, classes=len(subject.manifest.classes))
    predictions.restore()
    if predictions.done:
        emit("log", {"message": f"resumed at image {predictions.done}", "images": predictions.done})
    progress = Progress(total=len(subject.split), done=predictions.done)
    with SignsOfLife(progress.say) as alive:
        if predictions.done < len(subject.split):
            stop.check()
            model = _model(subject, arguments.device)
            progress.start()
            for done in _computing(model, subject, predictions, stop):
                progress.at(done)
                alive.moved()
        logits = predictions.logits()
        if not np.isfinite(logits).all():
            raise JobRefused("not_finite", "the model's outputs are not all finite numbers", "Train the model anew.")
        progress.phase = "report"
        figures = _publish(arguments.claim_dir, subject, logits, stop)
    kept = {name: value for name, value in figures.items() if name not in ("per_class", "confusion")}
    emit("evaluation", {"split": subject.split.name, **kept})
    emit(
        "result",
        {
            "artifact": f"{arguments.claim_dir.name}/{artifacts.FOLDER}",
            "metrics": {"split": subject.split.name, **figures, "images_per_second": progress.rate},
        },
    )


def _model(subject: Subject, device: str) -> Runtime:
    try:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = runtime.load(subject.folder, device)
        golden.check(model, subject.folder)
    except ModelDamagedError as error:
        raise JobRefused("model_damaged", str(error), "Restore the model's folder, or train it anew.") from error
    except ValueError as error:
        raise JobRefused("no_device", str(error), "Use auto or cpu.") from error
    return model


def _computing(model: Runtime, subject: Subject, predictions: Predictions, stop: Stop) -> Iterator[int]:
    """Add the logits that are still missing, and say after each batch how many there are.

    They are kept at once, then every two seconds, and when a stop is asked for. Raises JobStopped, JobRefused.
    """
    kept_at = -_KEEP_SECONDS
    for pixels in batches(subject.split, subject.manifest.preprocessing, first=predictions.done):
        try:
            predictions.add(model.logits(pixels))
        except torch.OutOfMemoryError as error:
            raise JobRefused("out_of_memory", "the device has too little memory", "Evaluate on the CPU.") from error
        yield predictions.done
        if stop.requested or time.monotonic() - kept_at >= _KEEP_SECONDS:
            if predictions.keep():
                emit("checkpoint", {"images": predictions.done})
            kept_at = time.monotonic()
        if stop.requested:
            raise JobStopped
    predictions.keep()  # the drawings may fail on a full disk; the images need not be computed again for them


def _publish(claim_dir: Path, subject: Subject, logits: Logits, stop: Stop) -> dict[str, Any]:
    """Write the figures and their drawings; the figures."""
    labels, classes, temperature = subject.labels, subject.manifest.classes, subject.temperature
    figures = report.summary(logits, labels, classes, temperature)
    evaluation = documents.Evaluation(
        figures=figures,
        logits=logits,
        labels=labels,
        classes=classes,
        temperature=temperature,
        pixels=lambda index: prepared(subject.split, range(index, index + 1), subject.manifest.preprocessing)[0],
    )
    about = {
        "model": {
            "name": subject.name,
            "version": subject.version,
            "weights_sha256": subject.manifest.weights_sha256,
        },
        "dataset": {"id": subject.dataset.id, "name": subject.dataset.name, "digest": subject.dataset.digest},
        "split": subject.split.name,
    }
    with artifacts.writing(claim_dir) as folder:
        write_atomic(folder / "metrics.json", documents.as_json({"split": subject.split.name, **figures}))
        documents.write(folder, evaluation, about=about, between=stop.check)
    return figures
