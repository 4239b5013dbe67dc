"""A confusion matrix."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from worker.figures.canvas import INK, PALE, VAL, new_figure, short, styled

_FEW_CLASSES = 30  # with more, names and numbers would not be read
_CELL_INCHES = 0.36
_BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", VAL])


@styled
def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Counts (K, K), a row for each true class. Shade is the share of the row; counts are written where they fit."""
    counts = np.array(matrix, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= _FEW_CLASSES
    side = max(3.0, len(classes) * _CELL_INCHES) if few else 8.0
    figure = new_figure(side + 2.2, side + 2.0)
    axes = figure.subplots()
    axes.grid(visible=False)
    axes.set_aspect("equal")
    axes.set_title("Confusion matrix: shade is the share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(True)
    if few:
        _cells(axes, counts, shares)
        places = np.arange(len(classes)) + 0.5
        names = [short(name) for name in classes]
        axes.set_xticks(places, names, rotation=90, color=INK)
        axes.set_yticks(places, names, color=INK)
        axes.tick_params(length=0)
    else:  # as pixels: a shape for each cell would make a file of many megabytes
        extent = (0, len(classes), len(classes), 0)
        axes.imshow(shares, cmap=_BLUES, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    return figure


def _cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    axes.pcolormesh(shares, cmap=_BLUES, vmin=0, vmax=1, edgecolors="#ffffff", linewidth=0.8)
    axes.invert_yaxis()
    for row, column in np.argwhere(counts):
        count = int(counts[row, column])
        colour = "#ffffff" if shares[row, column] > 0.5 else INK
        size = 8.0 if count < 1000 else 6.5 if count < 100_000 else 5.0
        axes.text(column + 0.5, row + 0.5, f"{count}", ha="center", va="center", color=colour, fontsize=size)
    axes.spines[:].set_color(PALE)
