"""What a converted model is held to before anybody gets it."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from models.golden import tolerance
from worker.job_process import JobRefused


def proven(logits: Iterable[npt.NDArray[np.float32]], expected: npt.NDArray[np.float32], what: str) -> float:
    """The largest deviation of a logit, each of `logits` (N, K) being of the first N images of `expected` (G, K).

    Raises JobRefused above the tolerance of `models/golden.py`, and for logits that are no numbers.
    """
    deviation = float(np.max([np.abs(each - expected[: len(each)]).max() for each in logits]))  # NaN if one is
    if deviation <= tolerance(expected):
        return deviation
    raise JobRefused(
        "export_deviates",
        f"{what}'s logits deviate by {deviation:.3g} from those of the model, {tolerance(expected):.3g} is allowed.",
        "The model is intact: export it in another format, or as a bundle, which is converted to nothing.",
    )
