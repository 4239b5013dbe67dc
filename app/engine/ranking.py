"""From probabilities to the labels that a client sees."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.inference.protocol import Label


def top_k(row: npt.NDArray[np.float64], classes: Sequence[str], *, k: int) -> tuple[Label, ...]:
    """The `k` likeliest classes (all of them where k is larger), the likeliest first, equal ones by class index.

    Raises ValueError where a probability is not finite.
    """
    if not np.isfinite(row).all():
        raise ValueError("the network's output is not a finite number")
    order = np.argsort(-row, kind="stable")[:k]
    return tuple(Label(label=classes[i], class_index=int(i), probability=float(row[i])) for i in order)
