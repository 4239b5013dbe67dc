"""From probabilities to the labels that a client sees."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.inference.protocol import Label

NOT_FINITE = "the network's output is not a finite number"


def top_k(row: npt.NDArray[np.float64], classes: Sequence[str], *, k: int) -> tuple[Label, ...]:
    """The `k` likeliest classes (all of them where k is larger), the likeliest first, equal ones by class index.

    Raises ValueError where a probability is not finite.
    """
    if not np.isfinite(row).all():
        raise ValueError(NOT_FINITE)
    order = np.argsort(-row, kind="stable")[:k]
    return tuple(label_of(row, classes, int(i)) for i in order)


def label_of(row: npt.NDArray[np.float64], classes: Sequence[str], index: int) -> Label:
    """One class with its probability in `row` (K,)."""
    return Label(label=classes[index], class_index=index, probability=float(row[index]))
