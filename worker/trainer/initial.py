"""What a training starts from: torchvision's weights or a model of the catalog, with a last layer for its classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from models.catalog import Catalog, ModelNotFound
from models.classes import ClassesDiffer, class_map
from models.manifest import ModelDamagedError
from models.recipes import Recipe
from models.recipes.sense import unlike
from models.runtime import load, split
from store.layout import Layout
from worker.job_process import JobRefused
from worker.trainer.pretrained import torchvision_weights

_NAMED = 5  # tensors that a refusal lists


@dataclass(frozen=True, kw_only=True)
class Report:
    """`taken` tensors came from `source`; the last layer is `new`, or was taken too."""

    source: str
    taken: int
    new_head: bool

    def __str__(self) -> str:
        return f"starts from {self.source}, with {'a new' if self.new_head else 'its'} last layer"


def initialise(
    network: nn.Module, recipe: Recipe, *, classes: Sequence[str], data_dir: Path, between: Callable[[], None]
) -> Report | None:
    """Give the network, fresh from its seed, the weights that `recipe.init` names; None where it names none.

    The last layer is taken along where the classes have the same names, in whatever order; else it stays as it is.
    `between` is called while a download lasts. Raises JobRefused where the weights are absent, damaged or of another
    network.
    """
    if recipe.init is None:
        return None
    if recipe.init.weights is not None:
        source, rows = f"torchvision's {recipe.init.weights}", None
        folder = Layout(data_dir).weights
        state = torchvision_weights(recipe.network, recipe.init.weights, folder=folder, between=between)
    else:
        source, state, rows = _of_model(str(recipe.init.model), recipe, classes, Layout(data_dir))
    head, own = _head(network), network.state_dict()
    for part in ("weight", "bias"):
        name = f"{head}.{part}"
        state[name] = own[name] if rows is None else state[name][list(rows)]
    # torchvision's older files lack the counts of batches, which torch begins at nought.
    state |= {name: own[name] for name in own.keys() - state.keys() if name.endswith(".num_batches_tracked")}
    _refuse_other_shapes(state, own, source)
    network.load_state_dict(state)
    new = 0 if rows is not None else 2
    return Report(source=source, taken=len(state) - new, new_head=rows is None)


def _of_model(
    ref: str, recipe: Recipe, classes: Sequence[str], layout: Layout
) -> tuple[str, dict[str, Tensor], tuple[int, ...] | None]:
    """A model's name and version, its state, and the rows of its last layer for `classes`, if it knows just those."""
    catalog = Catalog(layout.models)
    try:
        name, version = catalog.resolve(ref)
        loaded = load(catalog.folder(name, version), "cpu")
    except ModelNotFound as error:
        raise JobRefused("model_not_found", str(error), error.hint) from error
    except ModelDamagedError as error:
        raise JobRefused("model_damaged", str(error), "Start from another version.") from error
    if (difference := unlike(loaded.manifest, recipe)) is not None:
        raise JobRefused("other_network", *difference)
    try:
        rows = class_map(loaded.manifest.classes, classes)
    except ClassesDiffer:
        rows = None
    return f"{name}@{version}", loaded.network.state_dict(), rows


def _head(network: nn.Module) -> str:
    """The name of the last layer."""
    _, head = split(network)
    return next(name for name, layer in network.named_children() if layer is head)


def _refuse_other_shapes(state: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    wrong = [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    wrong += state.keys() - own.keys()
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise JobRefused(
            "other_network",
            f"{source} does not fit the network in {', '.join(wrong[:_NAMED])}{more}",
            "Start from weights of this very network.",
        )
