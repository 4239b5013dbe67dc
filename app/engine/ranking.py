"""From probabilities to the labels that a client sees."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.inference.protocol import Label

_FEW = 300  # classes; to put more of them in order takes longer than to find the likeliest first
NOT_FINITE = "the network's output is not a finite number"


def top_k(row: npt.NDArray[np.float64], classes: Sequence[str], *, k: int) -> tuple[Label, ...]:
    """The `k` likeliest classes (all of them where k is larger), the likeliest first, equal ones by class index."""
    if k < len(row) > _FEW:
        among = np.flatnonzero(row >= np.partition(row, -k)[-k])
        order = among[np.argsort(-row[among], kind="stable")][:k]
    else:
        order = np.argsort(-row, kind="stable")[:k]
    likeliest = zip(order.tolist(), row[order].tolist(), strict=True)
    return tuple(Label(label=classes[i], class_index=i, probability=value) for i, value in likeliest)


def label_of(row: npt.NDArray[np.float64], classes: Sequence[str], index: int) -> Label:
    """One class with its probability in `row` (K,)."""
    return Label(label=classes[index], class_index=index, probability=float(row[index]))
