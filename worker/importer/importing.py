"""An import from the upload to the dataset folder: open, plan, decode, judge, write."""

from collections.abc import Sequence
from pathlib import Path

from models.images import ImageWarning
from store import class_names
from store.dataset_writer import DatasetWriter
from store.datasets import Dataset, Source
from worker.importer import idx
from worker.importer.archive import Archive, open_archive
from worker.importer.decoding import Outcome, decode_all
from worker.importer.findings import Findings, refuse_untrainable
from worker.importer.limits import Limits, broken
from worker.importer.manifest import plan_manifests
from worker.importer.plan import Plan, plan_folders
from worker.importer.progress import Progress
from worker.importer.streams import STREAM_ERRORS, machine_failed
from worker.job_process import JobRefused


def import_dataset(
    upload: Path, artifact: Path, *, dataset_id: str, name: str, limits: Limits, progress: Progress
) -> Dataset:
    """Make the folder `artifact` (dataset.json and data/) from the archive `upload`. Raises JobRefused."""
    archive = open_archive(upload, limits, lambda seen: progress.at("reading", seen, 0), progress.moved)
    writer = DatasetWriter(artifact)
    try:
        return _Import(archive, writer, limits, progress).run(dataset_id, name)
    except STREAM_ERRORS as error:
        if machine_failed(error):
            raise
        raise broken(str(error) or type(error).__name__) from error
    finally:
        writer.close()
        archive.close()


class _Import:
    def __init__(self, archive: Archive, writer: DatasetWriter, limits: Limits, progress: Progress) -> None:
        self._archive, self._writer, self._limits, self._progress = archive, writer, limits, progress
        self._findings = Findings()

    def run(self, dataset_id: str, name: str) -> Dataset:
        idx_plan = idx.plan_idx(self._archive, self._limits)
        if idx_plan is not None:
            classes, source = idx_plan.classes, Source(format="idx")
            self._add_idx(idx_plan)
        else:
            plan = plan_manifests(self._archive) or plan_folders(self._archive.files, self._archive.folders)
            _refuse_empty_folders(plan)
            _refuse_unclear_classes(plan)
            classes, source = tuple(sorted({image.label for image in plan.images})), Source(format=plan.format)
            self._add_images(plan, classes)
        self._findings.refuse_if_none(len(self._writer))
        total = len(self._writer)
        self._progress.at("writing", 0, total)
        self._settle_splits(classes)
        return self._writer.finish(
            dataset_id=dataset_id,
            name=name,
            source=source,
            classes=classes,
            report=self._findings.report(total),
            wrote=lambda images: self._progress.at("writing", images, total),
        )

    def _settle_splits(self, classes: Sequence[str]) -> None:
        named = self._writer.has_splits
        taken = self._writer.assign_splits()
        counts = self._writer.counts(len(classes))
        if named and taken is not None and "test" in counts:
            message = "there was no test split; a fifth of the training images was taken for it"
            self._findings.warn(ImageWarning("test_split_from_train", message), taken, sum(counts["test"]))
        refuse_untrainable(classes, counts)

    def _add_idx(self, plan: idx.IdxPlan) -> None:
        self._findings.skipped += plan.skipped
        for done, sample in enumerate(idx.samples(self._archive, plan, self._limits)):
            self._writer.add(sample)
            self._progress.at("decoding", done, plan.images)

    def _add_images(self, plan: Plan, classes: Sequence[str]) -> None:
        self._findings.skipped += plan.skipped
        labels = {name: index for index, name in enumerate(classes)}
        done = 0
        for outcomes in decode_all(self._archive, plan.images, labels, self._limits):
            for outcome in outcomes:
                self._note(outcome)
            done += len(outcomes)
            self._progress.at("decoding", done, len(plan.images))

    def _note(self, outcome: Outcome) -> None:
        if outcome.sample is not None:
            self._writer.add(outcome.sample)
        if outcome.corrupt is not None:
            self._findings.corrupt.append(outcome.corrupt)
        if outcome.skipped is not None:
            self._findings.skipped.append(outcome.skipped)
        for warning in outcome.warnings:
            self._findings.warn(warning, outcome.name)


def _refuse_unclear_classes(plan: Plan) -> None:
    if reason := class_names.unclear(sorted({image.label for image in plan.images})):
        raise JobRefused(
            "bad_class_names",
            f"the images cannot be sorted into classes: {reason}",
            f"A class has a name of 1 to {class_names.LONGEST} characters, none of them a control character.",
        )


def _refuse_empty_folders(plan: Plan) -> None:
    if plan.empty:
        raise JobRefused(
            "class_without_images",
            f"class folders without images: {', '.join(sorted(plan.empty)[:10])}",
            "Add images to these folders, or leave them out of the archive.",
        )
