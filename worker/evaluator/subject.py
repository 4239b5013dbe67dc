"""What is evaluated on what, read from the job's spec and refused where it does not fit."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.catalog import Catalog, ModelNotFound
from models.classes import ClassesDiffer, map_into
from models.manifest import Manifest, ModelDamagedError
from store.datasets import Dataset, SplitName
from store.layout import Layout
from store.splits import Split
from worker.job_process import JobRefused
from worker.job_spec import read_job_spec
from worker.trainer.data import described, opened
from worker.trainer.hold_out import contents, stratified
from worker.trainer.metrics import Labels
from worker.trainer.pixels import Rows

MEND = "Restore the model's folder, or train it anew."

_MOST_OF_TRAIN = 2000  # images: to fit one number, and so that an evaluation does not take much longer


class EvaluateSpec(BaseModel):
    """spec.json of an evaluate job. `model` is `name@version`."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["evaluate"]
    model: str
    dataset: str
    split: SplitName = "test"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images `rows` (N,) of a split, and their labels (N,) in the model's class indices."""

    split: Split
    rows: Rows
    labels: Labels

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated on what: the model on `judged`.

    `fitting` is what a temperature is fitted on for a model that has none: the dataset's val split, else what is held
    out of its train split, where the model is not known to have learned from that. It is never of the judged split.
    """

    name: str
    version: int
    manifest: Manifest
    folder: Path
    dataset: Dataset
    judged: Part
    fitting: Part | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """All whose logits are needed, the judged one first."""
        return (self.judged,) if self.fitting is None else (self.judged, self.fitting)

    @property
    def images(self) -> int:
        return sum(len(part) for part in self.parts)


def read_subject(run_dir: Path, layout: Layout, *, between: Callable[[], None] = lambda: None) -> Subject:
    """Raises JobRefused where the spec, the model, the dataset or their classes do not fit.

    `between` is called every thousand images where all of a split are read: to be checked, or to hold some out.
    """
    spec = read_job_spec(run_dir, EvaluateSpec)
    catalog = Catalog(layout.models)
    try:
        name, version = catalog.resolve(spec.model)
        manifest = catalog.manifest(name, version)
    except ModelNotFound as error:
        raise JobRefused("model_not_found", str(error), error.hint) from error
    except ModelDamagedError as error:
        raise JobRefused("model_damaged", str(error), MEND) from error
    folder = layout.dataset(spec.dataset)
    dataset = described(folder, spec.dataset)
    if spec.split not in dataset.splits:
        has = ", ".join(dataset.splits)
        raise JobRefused("no_split", f"the dataset has no split {spec.split}", f"Its splits: {has}.")
    if dataset.splits[spec.split].images == 0:
        raise JobRefused("no_split", f"split {spec.split} has no images", "Choose another split.")
    try:
        to_model = np.array(map_into(manifest.classes, dataset.classes), dtype=np.int64)
    except ClassesDiffer as error:
        raise JobRefused("classes_differ", str(error), error.hint) from error

    def part(name: SplitName, choose: Callable[[Split], Rows]) -> Part:
        split = opened(folder, dataset, name, between=between)
        rows = choose(split)
        return Part(split=split, rows=rows, labels=to_model[split.labels[rows]])

    judged, fitting = part(spec.split, _all), None
    match _fitting_split(manifest, dataset, spec.split):
        case "val":
            fitting = part("val", _all)
        case "train":
            fitting = part("train", lambda split: _held_out(split, between))
    return Subject(
        name=name,
        version=version,
        manifest=manifest,
        folder=catalog.folder(name, version),
        dataset=dataset,
        judged=judged,
        fitting=fitting if fitting is not None and len(fitting) else None,
    )


def _fitting_split(manifest: Manifest, dataset: Dataset, judged: SplitName) -> Literal["val", "train"] | None:
    if manifest.calibration is not None:
        return None
    filled = {name for name, split in dataset.splits.items() if split.images and name != judged}
    if "val" in filled:
        return "val"
    return "train" if "train" in filled and manifest.lineage.dataset_digest != dataset.digest else None


def _all(split: Split) -> Rows:
    return np.arange(len(split))


def _held_out(split: Split, between: Callable[[], None]) -> Rows:
    """Those images of train that a training here would hold out first, of each class its share, 2,000 at most."""
    fraction = min(1.0, _MOST_OF_TRAIN / len(split))
    _, held = stratified(split.labels, contents(split, between=between), fraction=fraction)
    return held[np.linspace(0, len(held) - 1, min(len(held), _MOST_OF_TRAIN), dtype=np.int64)]
