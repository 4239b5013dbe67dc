"""How often a model is right when it says how sure it is."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from worker.figures.canvas import MARK, PALE, VAL, new_figure, styled
from worker.trainer.metrics import Bins


@styled
def reliability(
    bins: Bins, *, ece: float, uncalibrated: Bins, ece_uncalibrated: float, fitted_on: str | None = None
) -> Figure:
    """Accuracy over confidence (Guo et al. 2017): bars with a temperature, a line at temperature 1.

    The bars are the model as it is served, or with a temperature that was `fitted_on` a split for the figures alone:
    then the line is. A bar is the darker, the more images its bin holds.
    """
    figure = new_figure(5.2, 5.2)
    axes = figure.subplots()
    width = 1 / len(bins.images)
    filled = np.flatnonzero(bins.images)
    shades = 0.3 + 0.7 * np.sqrt(bins.images[filled] / bins.images.max())
    for i, shade in zip(filled, shades, strict=True):
        accuracy = bins.correct[i] / bins.images[i]
        axes.bar((i + 0.5) * width, accuracy, width * 0.94, color=VAL, alpha=float(shade), linewidth=0)
    axes.plot([0, 1], [0, 1], color=PALE, linestyle="--", linewidth=1)
    seen = np.flatnonzero(uncalibrated.images)
    axes.plot(
        uncalibrated.confidence[seen] / uncalibrated.images[seen],
        uncalibrated.correct[seen] / uncalibrated.images[seen],
        color=MARK,
        linewidth=1.5,
        marker="o",
        markersize=3,
    )
    bars, line = ("as served", "uncalibrated") if fitted_on is None else (f"temperature of {fitted_on}", "as served")
    axes.set_title(f"Bars: {bars}, ECE {ece:.4f}. Line: {line}, ECE {ece_uncalibrated:.4f}")
    axes.set_xlabel("confidence")
    axes.set_ylabel("right answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    return figure
