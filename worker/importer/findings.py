"""What an import has to say about single files: the report, and its judgement on the whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from models.images import ImageWarning
from store.datasets import MAX_LISTED, FileNote, Report, SplitName, Truncated, WarningNote
from worker.importer.plan import no_images
from worker.job_process import JobRefused


@dataclass
class Findings:
    corrupt: list[FileNote] = field(default_factory=list)
    skipped: list[FileNote] = field(default_factory=list)
    warnings: dict[str, WarningNote] = field(default_factory=dict)

    def warn(self, warning: ImageWarning, file: str, images: int = 1) -> None:
        """Count a conversion under its code; the example is the first file by name."""
        known = self.warnings.get(warning.code)
        if known is None:
            note = WarningNote(code=warning.code, message=warning.message, images=images, example=file)
        else:
            note = known.model_copy(update={"images": known.images + images, "example": min(known.example, file)})
        self.warnings[warning.code] = note

    def report(self, images: int) -> Report:
        corrupt = sorted(self.corrupt, key=lambda note: note.file)
        skipped = sorted(self.skipped, key=lambda note: note.file)
        return Report(
            images=images,
            corrupt=tuple(corrupt[:MAX_LISTED]),
            skipped=tuple(skipped[:MAX_LISTED]),
            warnings=tuple(self.warnings[code] for code in sorted(self.warnings)),
            truncated=Truncated(
                corrupt=max(0, len(corrupt) - MAX_LISTED),
                skipped=max(0, len(skipped) - MAX_LISTED),
            ),
        )

    def refuse_if_none(self, images: int) -> None:
        if images:
            return
        first = min(self.corrupt or self.skipped, key=lambda note: note.file, default=None)
        raise no_images(f"{first.file}: {first.reason}" if first else "it holds no files")


def refuse_untrainable(classes: Sequence[str], counts: dict[SplitName, list[int]]) -> None:
    """Raises JobRefused for what no training could use: one class, a class without images, nothing to test on."""
    if len(classes) < 2:
        raise JobRefused(
            "one_class",
            f"there is only one class, {classes[0]!r}",
            "Put the images of each class in a folder of its own; two classes are the least.",
        )
    train = counts.get("train", [0] * len(classes))
    missing = [name for name, images in zip(classes, train, strict=True) if images == 0]
    if missing:
        raise JobRefused(
            "class_without_images",
            f"{len(missing)} of {len(classes)} classes have no usable training images: {', '.join(missing[:10])}",
            "Add images to these classes, or take the classes out of every split.",
        )
    if "test" not in counts:
        raise JobRefused(
            "no_test_images",
            "there are no images to test with",
            "Add a test folder, or at least two different images to a class.",
        )
