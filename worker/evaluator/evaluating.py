"""An evaluation from its spec to its report: model, images, logits, figures, drawings."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from models import checkpoint_files, golden, runtime
from models.runtime import Runtime
from store import artifacts
from store.control_group import usable_cores
from store.datasets import SplitName
from store.files import write_atomic
from store.layout import Layout
from worker.evaluator import documents, report
from worker.evaluator.predictions import Predictions
from worker.evaluator.progress import Progress
from worker.evaluator.reader import batches
from worker.evaluator.subject import MEND, Subject, read_subject
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, JobStopped, Stop, emit, out_of_memory
from worker.signs_of_life import SignsOfLife
from worker.trainer import metrics
from worker.trainer.metrics import Logits
from worker.trainer.pixels import prepared

_KEEP_SECONDS = 2.0


def evaluate(arguments: JobArguments, stop: Stop) -> None:
    """Run the job to its end, from what earlier claims computed."""
    progress = Progress()
    with SignsOfLife(progress.say) as alive:

        def between() -> None:
            stop.check()
            alive.moved()

        subject = read_subject(arguments.run_dir, Layout(arguments.data_dir), between=between)
        checkpoint_files.sweep(arguments.claim_dir)
        predictions = Predictions(arguments.run_dir, arguments.claim_dir, classes=len(subject.manifest.classes))
        predictions.restore()
        if predictions.done:
            emit("log", {"message": f"resumed at image {predictions.done}", "images": predictions.done})
        progress.total, progress.done = subject.images, predictions.done
        if predictions.done < subject.images:
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
    split = subject.judged.split.name
    emit("evaluation", {"split": split, **report.single(figures)})
    emit(
        "result",
        {
            "artifact": f"{arguments.claim_dir.name}/{artifacts.FOLDER}",
            "metrics": {"split": split, **figures, "images_per_second": progress.rate},
        },
    )


def _model(subject: Subject, device: str) -> Runtime:
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    try:
        runtime.resolve_device(device)
    except ValueError as error:
        raise JobRefused("no_device", str(error), "Use auto or cpu.") from error
    try:
        model = runtime.load(subject.folder, device)
        golden.check(model, subject.folder)
    except ValueError as error:  # ModelDamagedError, and whatever files say that nobody but their digests fits
        raise JobRefused("model_damaged", str(error), MEND) from error
    return model


def _missing(subject: Subject, done: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Batches of the images behind the first `done`: of what is judged, then of what a temperature is fitted on."""
    for part in subject.parts:
        if done < len(part):
            yield from batches(part.split, part.rows, subject.manifest.preprocessing, first=done)
        done = max(done - len(part), 0)


def _computing(model: Runtime, subject: Subject, predictions: Predictions, stop: Stop) -> Iterator[int]:
    """Add the logits that are still missing, and say after each batch how many there are.

    They are kept at once, then every two seconds, and when a stop is asked for. Raises JobStopped, JobRefused.
    """
    kept_at = -_KEEP_SECONDS
    for pixels in _missing(subject, predictions.done):
        try:
            predictions.add(model.logits(pixels))
        except RuntimeError as error:
            if model.device.type != "cuda" or not out_of_memory(error):
                raise
            raise JobRefused("out_of_memory", "the device has too little memory", "Evaluate on the CPU.") from error
        yield predictions.done
        if stop.requested or time.monotonic() - kept_at >= _KEEP_SECONDS:
            if predictions.keep():
                emit("checkpoint", {"images": predictions.done})
            kept_at = time.monotonic()
        if stop.requested:
            raise JobStopped
    predictions.keep()  # the drawings may fail on a full disk; the images need not be computed again for them


def _temperature(subject: Subject, logits: Logits) -> tuple[float, Literal["manifest"] | SplitName | None]:
    """The model's own, else one that is fitted here to `logits` of `subject.fitting`, else 1; and whose it is."""
    if subject.manifest.calibration is not None:
        return subject.manifest.calibration.temperature, "manifest"
    if subject.fitting is not None:
        return metrics.fit_temperature(logits, subject.fitting.labels), subject.fitting.split.name
    return 1.0, None


def _warn_of_learned(subject: Subject, logits: Logits, others: Logits) -> None:
    """Weights from elsewhere may have learned from train's images; `others` are the logits of `subject.fitting`."""
    if subject.fitting is None or subject.fitting.split.name != "train":
        return
    right, elsewhere = (
        int((each.argmax(axis=1) == part.labels).sum())
        for each, part in ((others, subject.fitting), (logits, subject.judged))
    )
    of, of_elsewhere = len(subject.fitting), len(subject.judged)
    if report.seems_learned(right=right, of=of, elsewhere=elsewhere, of_elsewhere=of_elsewhere):
        message = (
            f"the model is right on {right / of:.1%} of the {of:,} images of train that its temperature was fitted on, "
            f"and on {elsewhere / of_elsewhere:.1%} of {subject.judged.split.name}: "
            "where it has learned from them, that temperature is too low"
        )
        emit("warning", {"code": "temperature_of_learned_images", "message": message})


def _publish(claim_dir: Path, subject: Subject, logits: Logits, stop: Stop) -> dict[str, Any]:
    """Write the figures and their drawings; the figures. `logits` are those of all parts, one behind the other."""
    labels, split, classes = subject.judged.labels, subject.judged.split, subject.manifest.classes
    logits, others = np.split(logits, [len(split)])
    temperature, temperature_from = _temperature(subject, others)
    _warn_of_learned(subject, logits, others)
    figures = {**report.summary(logits, labels, classes, temperature), "temperature_from": temperature_from}
    evaluation = documents.Evaluation(
        figures=figures,
        logits=logits,
        labels=labels,
        classes=classes,
        temperature=temperature,
        fitted_on=None if subject.fitting is None else subject.fitting.split.name,
        pixels=lambda index: prepared(split, range(index, index + 1), subject.manifest.preprocessing)[0],
    )
    about = {
        "model": {
            "name": subject.name,
            "version": subject.version,
            "weights_sha256": subject.manifest.weights_sha256,
        },
        "dataset": {"id": subject.dataset.id, "name": subject.dataset.name, "digest": subject.dataset.digest},
        "split": split.name,
    }
    with artifacts.writing(claim_dir) as folder:
        write_atomic(folder / "metrics.json", documents.as_json({"split": split.name, **figures}))
        write_atomic(folder / "metrics.csv", documents.as_csv([{"split": split.name, **report.single(figures)}]))
        documents.write(folder, evaluation, about=about, between=stop.check)
    return figures
