"""An export from its spec to its files: the model is loaded and proven, then written in the format asked for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from models import bundle, checkpoint_files, golden, runtime
from models.catalog import Catalog, ModelNotFound
from models.manifest import MANIFEST, ModelDamagedError
from models.runtime import Runtime
from store import artifacts
from store.layout import Layout
from worker.exporter import onnx_model, program
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, Stop, emit
from worker.job_spec import read_job_spec
from worker.signs_of_life import SignsOfLife


class ExportSpec(BaseModel):
    """spec.json of an export job. `model` is `name@version`."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["export"]
    model: str
    format: Literal["bundle", "torch_export", "onnx"]


def export(arguments: JobArguments, stop: Stop) -> None:
    """Run the job to its end. What an earlier claim left is written anew: an export takes seconds."""
    spec = read_job_spec(arguments.run_dir, ExportSpec)
    catalog = Catalog(Layout(arguments.data_dir).models)
    try:
        name, version = catalog.resolve(spec.model)
        folder = catalog.folder(name, version)
    except ModelNotFound as error:
        raise JobRefused("model_not_found", str(error), error.hint) from error
    checkpoint_files.sweep(arguments.claim_dir)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # a training may have the other cores
    steps = _Steps(stop, {"bundle": 3, "torch_export": 5, "onnx": 6}[spec.format])
    try:
        with SignsOfLife(steps.say) as alive:
            steps.begin("load", alive)
            model = runtime.load(folder, "cpu")
            steps.begin("check", alive)
            deviation = golden.check(model, folder)
            with artifacts.writing(arguments.claim_dir) as target:
                if spec.format == "bundle":
                    steps.begin("write", alive)
                    content = bundle.members(folder, name, version)
                    bundle.write_zip(target / "bundle.zip", content, top=f"{name}-{version}")
                else:
                    write = _write_program if spec.format == "torch_export" else _write_onnx
                    deviation = write(model, folder, target, lambda phase: steps.begin(phase, alive))
            steps.end()
    except ModelDamagedError as error:
        raise JobRefused("model_damaged", str(error), "Restore the model's folder, or train it anew.") from error
    emit(
        "result",
        {
            "artifact": f"{arguments.claim_dir.name}/{artifacts.FOLDER}",
            "metrics": {"format": spec.format, "golden_deviation": deviation},
        },
    )


def _write_program(model: Runtime, folder: Path, target: Path, begin: Callable[[str], None]) -> float:
    """program.pt2 and model.json; the deviation of the loaded program from the golden outputs."""
    begin("trace")
    traced = program.trace(model)
    begin("write")
    path = target / "program.pt2"
    program.write(traced, path, manifest=(folder / MANIFEST).read_bytes())
    shutil.copyfile(folder / MANIFEST, target / MANIFEST)
    begin("check")
    return program.check(path, folder)


def _write_onnx(model: Runtime, folder: Path, target: Path, begin: Callable[[str], None]) -> float:
    """model.onnx and model.json; the deviation of what onnxruntime computes from the golden outputs."""
    begin("trace")
    traced = program.trace(model)
    begin("convert")
    converted = onnx_model.convert(traced)
    begin("write")
    path = target / "model.onnx"
    onnx_model.write(converted, path, manifest=(folder / MANIFEST).read_bytes())
    shutil.copyfile(folder / MANIFEST, target / MANIFEST)
    begin("check")
    return onnx_model.check(path, folder)


class _Steps:
    """Which step it is, of how many. Between two of them the export stops where that was asked for."""

    def __init__(self, stop: Stop, total: int) -> None:
        self._stop, self._total = stop, total
        self._phase, self._begun = "load", 0

    def begin(self, phase: str, alive: SignsOfLife) -> None:
        self._stop.check()
        alive.moved()
        self._phase, self._begun = phase, self._begun + 1
        self.say()

    def end(self) -> None:
        self._begun = self._total + 1

    def say(self) -> None:
        done = max(self._begun - 1, 0)
        fraction = round(done / self._total, 4)
        emit("progress", {"phase": self._phase, "done": done, "total": self._total, "fraction": fraction})
