"""What is evaluated on what, read from the job's spec and refused where it does not fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from models.catalog import Catalog, ModelNotFound
from models.classes import ClassesDiffer, class_map
from models.manifest import Manifest
from store.datasets import Dataset, SplitName
from store.layout import Layout
from store.splits import Split, open_split
from worker.job_process import JobRefused
from worker.trainer.metrics import Labels


class EvaluateSpec(BaseModel):
    """spec.json of an evaluate job. `model` is `name@version`."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["evaluate"]
    model: str
    dataset: str
    split: SplitName = "test"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated on what. `labels` are the model's class indices."""

    name: str
    version: int
    manifest: Manifest
    folder: Path
    dataset: Dataset
    split: Split
    labels: Labels

    @property
    def temperature(self) -> float:
        return self.manifest.calibration.temperature if self.manifest.calibration else 1.0


def read_subject(run_dir: Path, layout: Layout) -> Subject:
    """Raises JobRefused where the spec, the model, the dataset or their classes do not fit."""
    try:
        spec = EvaluateSpec.model_validate_json((run_dir / "spec.json").read_bytes())
    except FileNotFoundError as error:
        raise JobRefused("no_spec", f"{run_dir} holds no spec.json", "Give the folder of a job.") from error
    except ValidationError as error:
        raise JobRefused("bad_spec", str(error.errors(include_url=False)[0]["msg"]), "Correct spec.json.") from error
    catalog = Catalog(layout.models)
    try:
        name, version = catalog.resolve(spec.model)
    except ModelNotFound as error:
        raise JobRefused("model_not_found", str(error), error.hint) from error
    folder = layout.dataset(spec.dataset)
    try:
        dataset = Dataset.read(folder)
        split = open_split(folder, dataset, spec.split)
    except FileNotFoundError as error:
        raise JobRefused("no_dataset", f"dataset {spec.dataset} is not imported here", "Upload it.") from error
    except KeyError as error:
        has = ", ".join(dataset.splits)
        raise JobRefused("no_split", f"the dataset has no split {spec.split}", f"Its splits: {has}.") from error
    if len(split) == 0:
        raise JobRefused("no_split", f"split {spec.split} has no images", "Choose another split.")
    manifest = catalog.manifest(name, version)
    try:
        to_model = np.array(class_map(manifest.classes, dataset.classes), dtype=np.int64)
    except ClassesDiffer as error:
        raise JobRefused("classes_differ", str(error), "Model and dataset need classes of the same names.") from error
    return Subject(
        name=name,
        version=version,
        manifest=manifest,
        folder=catalog.folder(name, version),
        dataset=dataset,
        split=split,
        labels=to_model[split.labels],
    )
