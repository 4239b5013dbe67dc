"""Which of a model's classes a dataset's are: by name, in whatever order each has them."""

from collections.abc import Sequence

_NAMED = 10  # names of each side that a message lists


class ClassesDiffer(ValueError):
    """A dataset with other classes than the model's. The message names the difference."""

    hint = (
        "Each class of the dataset needs the name of a class of the model, which may have more. "
        "Rename the others or leave them out, and import the dataset again."
    )


def class_map(model: Sequence[str], dataset: Sequence[str]) -> tuple[int, ...]:
    """The model's class index of each class of the dataset. Raises ClassesDiffer where the names are not the same."""
    if set(model) - set(dataset):
        raise ClassesDiffer(_difference(model, dataset))
    return map_into(model, dataset)


def map_into(model: Sequence[str], dataset: Sequence[str]) -> tuple[int, ...]:
    """The same of a dataset that may lack some of the model's classes, as one to evaluate on may.

    Raises ClassesDiffer where the dataset has a name that the model has not.
    """
    place = {name: index for index, name in enumerate(model)}
    if set(dataset) - set(place):
        raise ClassesDiffer(_difference(model, dataset))
    return tuple(place[name] for name in dataset)


def _difference(model: Sequence[str], dataset: Sequence[str]) -> str:
    inside, outside = set(model), set(dataset)
    only_dataset = [name for name in dataset if name not in inside]
    only_model = [name for name in model if name not in outside]
    sides = (("dataset", only_dataset), ("model", only_model))
    return "; ".join(f"the {side} alone has {_some(names)}" for side, names in sides if names)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(repr(name) for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
