"""Whether a runtime's answers are near enough to the float32 reference's to be served."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.engine.runtimes.base import Compute, Loaded, Numbers
from models.manifest import Manifest
from models.probes import Probes
from models.runtime import probabilities

_DEVIATION = {Numbers.FP32: 1e-3, Numbers.BF16: 2e-2}  # of a calibrated probability
_SAME_TOP_1 = {Numbers.BF16: 0.99, Numbers.INT8: 0.9}  # in fp32 only near ties change it
_DROP = 0.005  # of accuracy that int8 may cost
_ENOUGH = 200  # held-out images: fewer cannot show half a point
_AT_ONCE = 32

Logits = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Verdict:
    """`refused` says why the runtime must not serve, None where it may; `deviation` is a probability's largest."""

    deviation: float
    refused: str | None = None


def compare(computed: Logits, expected: Logits, *, numbers: Numbers, manifest: Manifest) -> Verdict:
    """Logits (N, K) against the reference's. For int8 no deviation is too large; see `accuracy`."""
    if not np.isfinite(computed).all():
        return Verdict(float("inf"), "an output is not a finite number")
    ours, theirs = probabilities(computed, manifest), probabilities(expected, manifest)
    deviation = float(np.abs(ours - theirs).max())
    most = _DEVIATION.get(numbers)
    if most is not None and deviation > most:
        return Verdict(deviation, f"a probability deviates by {deviation:.2g}, allowed are {most:g}")
    same = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    least = _SAME_TOP_1.get(numbers)
    if least is not None and same < least:
        return Verdict(deviation, f"the top class is the same on {same:.1%} of the probes, needed are {least:.0%}")
    return Verdict(deviation)


def accuracy(computed: Logits, expected: Logits, labels: npt.NDArray[np.int64]) -> str | None:
    """Why int8 may not serve: its accuracy on labelled images, against the reference's. None where it may."""
    if len(labels) < _ENOUGH:
        return f"{len(labels)} held-out images are too few to show that accuracy stays; needed are {_ENOUGH}"
    ours, theirs = (int((each.argmax(axis=1) == labels).sum()) for each in (computed, expected))
    if theirs - ours > _DROP * len(labels):
        points = 100 * (theirs - ours) / len(labels)
        return f"accuracy drops by {points:.1f} points on {len(labels)} images, allowed are {100 * _DROP:g}"
    return None


def golden_only(loaded: Loaded, *, numbers: Numbers, manifest: Manifest, golden: tuple[Pixels, Logits]) -> Verdict:
    """The golden outputs, one by one with all cores and in batches with one."""
    images, expected = golden
    alone = compare(_logits(loaded.wide, images, at_once=1), expected, numbers=numbers, manifest=manifest)
    together = compare(_logits(loaded.narrow or loaded.wide, images), expected, numbers=numbers, manifest=manifest)
    return Verdict(max(alone.deviation, together.deviation), alone.refused or together.refused)


def judge(
    loaded: Loaded, *, numbers: Numbers, manifest: Manifest, golden: tuple[Pixels, Logits], probes: Probes | None
) -> Verdict:
    """The golden outputs, then the held-out images where the model came with some: int8 serves only with them."""
    verdict = golden_only(loaded, numbers=numbers, manifest=manifest, golden=golden)
    if verdict.refused or numbers is Numbers.FP32:
        return verdict
    if probes is None:
        lacking = "the model came without calibration images" if numbers is Numbers.INT8 else None
        return Verdict(verdict.deviation, lacking)
    computed = _logits(loaded.narrow or loaded.wide, probes.heldout)
    wider = compare(computed, probes.logits, numbers=numbers, manifest=manifest)
    refused = wider.refused
    if refused is None and numbers is Numbers.INT8:
        refused = accuracy(computed, probes.logits, probes.labels)
    return Verdict(max(verdict.deviation, wider.deviation), refused)


def _logits(compute: Compute, images: Pixels, *, at_once: int = _AT_ONCE) -> Logits:
    parts = [compute(images[start : start + at_once]).logits for start in range(0, len(images), at_once)]
    return np.concatenate(parts)
