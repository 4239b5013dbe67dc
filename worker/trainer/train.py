"""A training job from its spec to a model version: data, network, optimizer, loop, evaluate, save."""

import hashlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from models import checkpoint as checkpoints
from models import checkpoint_files
from models.manifest import Lineage, Name, NetworkSpec
from models.networks import registry
from models.recipes import Recipe, RecipeError, resolve
from models.runtime import resolve_device
from store.datasets import Dataset
from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import JobRefused, Stop, emit
from worker.orders import NAME as ORDERS
from worker.orders import OrdersFile
from worker.trainer import data, optimizer
from worker.trainer.loop import Loop
from worker.trainer.orders import warn_of_late_orders
from worker.trainer.progress import Progress
from worker.trainer.save import code_version, save_model
from worker.trainer.state import RunState, averaged_copy


class TrainSpec(BaseModel):
    """spec.json of a train job."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["train"]
    dataset: str
    recipe: str
    overrides: dict[str, Any] = {}
    register_as: Name | None = None
    alias: str | None = None


def train(at: JobArguments, stop: Stop) -> None:
    """Run the job in `at.run_dir` to its end, from its newest checkpoint where there is one."""
    spec, recipe = _spec(at.run_dir)
    folder = Layout(at.data_dir).dataset(spec.dataset)
    dataset = _dataset(folder, spec.dataset)
    device = _prepared_device(at.device, recipe)

    checkpoint_files.sweep(at.claim_dir)
    training_data = data.read_training_data(folder, dataset, recipe, _loading(recipe, stop))
    network_spec = NetworkSpec(name=recipe.network, num_classes=len(dataset.classes), in_channels=recipe.channels)

    state = _fresh(network_spec, recipe, device)
    fingerprint = _fingerprint(recipe, dataset)
    _resume(state, at.run_dir, fingerprint)
    loop = Loop(
        recipe=recipe,
        data=training_data,
        classes=len(dataset.classes),
        state=state,
        device=device,
        claim_dir=at.claim_dir,
        fingerprint=fingerprint,
        stop=stop,
        orders_file=OrdersFile(at.claim_dir / ORDERS),
    )
    loop.run()

    has_test = "test" in dataset.splits and dataset.splits["test"].images > 0
    if not has_test:
        emit("warning", {"code": "no_test_split", "message": "the dataset has no test split; metrics are those of val"})
    speak = loop.sign_of_life("test")

    def between() -> None:
        stop.check()  # the last checkpoint says that training has ended; nothing is lost
        speak()

    test = data.read(folder, dataset, "test", training_data.preprocessing, between) if has_test else None

    def lineage(created_at: datetime) -> Lineage:
        return Lineage(
            job=at.run_dir.name,
            dataset=dataset.id,
            dataset_name=dataset.name,
            dataset_digest=dataset.digest,
            recipe=spec.recipe,
            seed=recipe.seed,
            code_version=code_version(),
            created_at=created_at,
        )

    best, kept = state.best or {}, state.kept or {}
    report = save_model(
        target=at.claim_dir / "model",
        weights=state.kept_weights,
        network=network_spec,
        classes=dataset.classes,
        lineage=lineage,
        data=training_data,
        test=test,
        training={
            "val_top1": kept.get("top1"),
            "val_loss": kept.get("loss"),
            "kept_epoch": kept.get("epoch"),
            "best_epoch": best.get("epoch"),
            "epochs": state.epoch,
            "ended": state.ended,
            "changes": state.changes,
            "train_seconds": round(state.elapsed, 1),
            "recipe": recipe.model_dump(mode="json"),
        },
        device=str(device),
        between=between,
    )
    warn_of_late_orders(state, loop.orders_file.look())
    emit("evaluation", report)
    emit("result", {"artifact": f"{at.claim_dir.name}/model", "metrics": report})


def _spec(run_dir: Path) -> tuple[TrainSpec, Recipe]:
    try:
        spec = TrainSpec.model_validate_json((run_dir / "spec.json").read_bytes())
        return spec, resolve(spec.recipe, spec.overrides)
    except FileNotFoundError as error:
        raise JobRefused("no_spec", f"{run_dir} holds no spec.json", "Give the folder of a job.") from error
    except RecipeError as error:
        raise JobRefused("bad_recipe", str(error), error.hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec.json"
        raise JobRefused("bad_spec", f"{where}: {first['msg']}", "Correct spec.json.") from error


def _dataset(folder: Path, dataset_id: str) -> Dataset:
    try:
        return Dataset.read(folder)
    except FileNotFoundError as error:
        raise JobRefused(
            "no_dataset", f"dataset {dataset_id} is not imported here", "Upload it, or wait until its import has ended."
        ) from error


def _prepared_device(name: str, recipe: Recipe) -> torch.device:
    try:
        device = resolve_device(name)
    except ValueError as error:
        raise JobRefused("no_device", str(error), "Use auto or cpu.") from error
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
        torch.use_deterministic_algorithms(mode=True)
    return device


def _loading(recipe: Recipe, stop: Stop) -> Callable[[], None]:
    """Signs of life while images are decoded; nothing needs saving then."""
    progress = Progress(epochs=recipe.epochs, steps=1)
    progress.say("load")

    def between() -> None:
        stop.check()
        if progress.due():
            progress.say("load")

    return between


def _fresh(spec: NetworkSpec, recipe: Recipe, device: torch.device) -> RunState:
    torch.manual_seed(recipe.seed)  # of the first weights; nothing later draws from torch
    network = registry.build(spec).to(device).to(memory_format=torch.channels_last)
    return RunState(
        network=network,
        optimizer=optimizer.build(network, recipe),
        average=averaged_copy(network) if recipe.ema_decay is not None else None,
        sums=torch.zeros(3, dtype=torch.float64, device=device),
    )


def _fingerprint(recipe: Recipe, dataset: Dataset) -> str:
    """A checkpoint is good for the same recipe on the same data only."""
    return hashlib.sha256(orjson.dumps([recipe.model_dump(mode="json"), dataset.digest])).hexdigest()


def _resume(state: RunState, run_dir: Path, fingerprint: str) -> None:
    checkpoint = checkpoints.newest(run_dir)
    if checkpoint is None:
        return
    if checkpoint.state["fingerprint"] != fingerprint:
        emit(
            "warning", {"code": "other_checkpoint", "message": "a checkpoint of another recipe or dataset is not used"}
        )
        checkpoint_files.forget(run_dir)  # else they would pass for the furthest, and new ones would be pruned
        return
    state.restore(checkpoint)
    emit("log", {"message": f"resumed at step {checkpoint.step}, epoch {state.epoch + 1}", "step": checkpoint.step})
