"""Whether a model's classes are a dataset's: by name, in whatever order each has them."""

from collections.abc import Sequence

_NAMED = 10  # names of each side that a message lists


class ClassesDiffer(ValueError):
    """A dataset with other classes than the model's. The message names the difference."""


def class_map(model: Sequence[str], dataset: Sequence[str]) -> tuple[int, ...]:
    """The model's class index of each class of the dataset. Raises ClassesDiffer where the names are not the same."""
    only_dataset = [name for name in dataset if name not in set(model)]
    only_model = [name for name in model if name not in set(dataset)]
    if only_dataset or only_model:
        parts = []
        if only_dataset:
            parts.append(f"the dataset alone has {_some(only_dataset)}")
        if only_model:
            parts.append(f"the model alone has {_some(only_model)}")
        raise ClassesDiffer("; ".join(parts))
    place = {name: index for index, name in enumerate(model)}
    return tuple(place[name] for name in dataset)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(repr(name) for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
