"""What is evaluated on what, read from the job's spec and refused where it does not fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.catalog import Catalog, ModelNotFound
from models.classes import ClassesDiffer, class_map
from models.manifest import Manifest, ModelDamagedError
from store.datasets import Dataset, SplitName
from store.layout import Layout
from store.splits import Split
from worker.job_process import JobRefused
from worker.job_spec import read_job_spec
from worker.trainer.data import described, opened
from worker.trainer.metrics import Labels

MEND = "Restore the model's folder, or train it anew."


class EvaluateSpec(BaseModel):
    """spec.json of an evaluate job. `model` is `name@version`."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["evaluate"]
    model: str
    dataset: str
    split: SplitName = "test"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split, and its labels (N,) in the model's class indices."""

    split: Split
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated on what: the model on `judged`.

    `fitting` is what a temperature is fitted on for a model that has none: the dataset's val split, where there is one
    and it is not the judged one itself.
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
        return sum(len(part.split) for part in self.parts)


def read_subject(run_dir: Path, layout: Layout) -> Subject:
    """Raises JobRefused where the spec, the model, the dataset or their classes do not fit."""
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
        to_model = np.array(class_map(manifest.classes, dataset.classes), dtype=np.int64)
    except ClassesDiffer as error:
        raise JobRefused("classes_differ", str(error), "Model and dataset need classes of the same names.") from error

    def part(split: SplitName) -> Part:
        found = opened(folder, dataset, split)
        return Part(split=found, labels=to_model[found.labels])

    fits = manifest.calibration is None and spec.split != "val"
    return Subject(
        name=name,
        version=version,
        manifest=manifest,
        folder=catalog.folder(name, version),
        dataset=dataset,
        judged=part(spec.split),
        fitting=part("val") if fits and "val" in dataset.splits and dataset.splits["val"].images else None,
    )
