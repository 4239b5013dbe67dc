"""A training job from its spec to a model version: data, network, optimizer, loop, evaluate, save."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from models import checkpoint as checkpoints
from models import checkpoint_files
from models.manifest import Lineage, NetworkSpec
from models.recipes import Recipe
from store.datasets import Dataset
from store.files import remove_tree
from store.layout import Layout
from store.version import code_version
from worker.job_arguments import JobArguments
from worker.job_process import Stop, emit
from worker.orders import NAME as ORDERS
from worker.orders import OrdersFile
from worker.trainer import data, files
from worker.trainer.distributed import World, joined
from worker.trainer.fresh import fresh_state
from worker.trainer.initial import initialise
from worker.trainer.loop import Loop
from worker.trainer.orders import warn_of_late_orders, with_settings
from worker.trainer.precision import prepared_device
from worker.trainer.progress import Progress
from worker.trainer.save import save_model
from worker.trainer.spec import identity, is_of, read_spec
from worker.trainer.split_sizes import sizes
from worker.trainer.state import RunState


def train(at: JobArguments, stop: Stop) -> None:
    """Run the job in `at.run_dir` to its end, from its newest checkpoint where there is one."""
    began = time.monotonic()
    spec, recipe = read_spec(at.run_dir)
    folder = Layout(at.data_dir).dataset(spec.dataset)
    dataset = data.described(folder, spec.dataset)
    network_spec = NetworkSpec(name=recipe.network, num_classes=len(dataset.classes), in_channels=recipe.channels)

    with joined(devices=recipe.devices, device=at.device) as (world, device_name):
        device = prepared_device(device_name, recipe)
        _sweep(at, world)
        state = fresh_state(network_spec, recipe, device, world)
        resumed = _resume(state, at.run_dir, recipe, dataset, world)
        between = _loading(recipe, state, dataset, stop)
        reading = data.Reading(between=between, loader=recipe.loader, workers=recipe.workers, readers=world.size)
        training_data = data.read_training_data(folder, dataset, recipe, reading, known=state.normalisation)
        state.normalisation = training_data.preprocessing.mean, training_data.preprocessing.std
        test_images = dataset.splits["test"].images if "test" in dataset.splits else 0
        has_test = test_images > 0
        if has_test:
            data.opened(folder, dataset, "test")  # what is damaged is refused now, not when all is learned
        world.refuse_unlike(state.step)
        if not resumed:
            with world.in_turn():
                _start_from(state, recipe, dataset, at.data_dir, between)
        state.ran += time.monotonic() - began
        loop = Loop(
            recipe=recipe,
            data=training_data,
            classes=len(dataset.classes),
            state=state,
            device=device,
            test_images=test_images,
            claim_dir=at.claim_dir,
            identity=identity(recipe, dataset),
            stop=stop,
            orders_file=OrdersFile(at.claim_dir / ORDERS),
            world=world,
        )
        loop.run()
    if not world.leads:
        return

    if not has_test:
        emit("warning", {"code": "no_test_split", "message": "the dataset has no test split; metrics are those of val"})
    speak = loop.sign_of_life("test")

    def and_stop() -> None:
        stop.check()  # the last checkpoint says that training has ended; nothing is lost
        speak()

    test = None
    if has_test:  # what training left of the memory may be too little, even where the recipe asks for it
        loader = "stream" if recipe.loader == "stream" else "auto"
        reading = data.Reading(between=and_stop, loader=loader, workers=recipe.workers)
        test = data.read(folder, dataset, "test", training_data.preprocessing, reading)

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
    saved = save_model(
        target=at.claim_dir / "model",
        weights=state.kept_weights,
        network=network_spec,
        classes=dataset.classes,
        lineage=lineage,
        data=training_data,
        test_time_flip=recipe.test_time_flip,
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
        between=and_stop,
    )
    files.write(
        at.claim_dir,
        saved.evaluation,
        about={
            "model": {"name": spec.register_as, "version": None, "weights_sha256": saved.weights_sha256},
            "dataset": {"id": dataset.id, "name": dataset.name, "digest": dataset.digest},
            "split": saved.report["split"],
        },
        report=saved.report,
        state=state,
        recipe=recipe,
        steps_per_epoch=loop.steps_per_epoch,
        between=and_stop,
    )
    warn_of_late_orders(state, loop.orders_file.look())
    emit("evaluation", saved.report)
    emit("result", {"artifact": f"{at.claim_dir.name}/model", "metrics": saved.report})


def _sweep(at: JobArguments, world: World) -> None:
    """Remove what earlier claims left half written, and models of those that were stopped before their result."""
    if world.size == 1:  # whoever started several has done so
        checkpoint_files.sweep(at.claim_dir)
    if world.leads:
        for number in range(at.claim):
            remove_tree(at.run_dir / f"claim-{number}" / "model")


def _loading(recipe: Recipe, state: RunState, dataset: Dataset, stop: Stop) -> Callable[[], None]:
    """Signs of life while images are decoded: the run is as far as it was. Nothing needs saving then."""
    epochs = with_settings(recipe, state.settings).epochs
    steps = max(epochs * sizes(dataset, recipe).steps_per_epoch, 1)  # too few images are refused when they are read
    progress = Progress(epochs=epochs, steps=steps, epoch=state.begun, step=state.step)
    progress.say("load")

    def between() -> None:
        stop.check()
        if progress.due():
            progress.say("load")

    return between


def _start_from(state: RunState, recipe: Recipe, dataset: Dataset, data_dir: Path, between: Callable[[], None]) -> None:
    """The weights that the recipe names, before the first step."""
    report = initialise(state.network, recipe, classes=dataset.classes, data_dir=data_dir, between=between)
    if report is None:
        return
    if state.average is not None:
        state.average.load_state_dict(state.network.state_dict())
    emit("log", {"message": str(report), "tensors": report.taken, "new_head": report.new_head})


def _resume(state: RunState, run_dir: Path, recipe: Recipe, dataset: Dataset, world: World) -> bool:
    """Whether there is a checkpoint that the run goes on from."""
    checkpoint = checkpoints.newest(run_dir)
    if checkpoint is None:
        return False
    if not is_of(checkpoint.state.get("identity", {}), recipe, dataset):
        emit(
            "warning", {"code": "other_checkpoint", "message": "a checkpoint of another recipe or dataset is not used"}
        )
        if world.leads:  # a rank that finds none any more begins anew likewise
            checkpoint_files.forget(run_dir)  # else they would pass for the furthest, and new ones would be pruned
        return False
    state.restore(checkpoint)
    emit("log", {"message": f"resumed at step {checkpoint.step}, epoch {state.epoch + 1}", "step": checkpoint.step})
    return True
