"""The images that a model was most wrongly sure of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from worker.figures.canvas import new_figure, note, short, styled

_COLUMNS = 5
_GAP = 0.12  # of an image's width
_LINES = 0.42  # room for two lines of text above each image


@styled
def mistakes(images: Sequence[npt.NDArray[np.uint8]], worst: Sequence[Mapping[str, Any]]) -> Figure:
    """Each image (H, W, C), C = 1 or 3, under what the model took it for, how surely, and what it is.

    `worst` has for each the keys `label`, `predicted`, `probability`, `index`.
    """
    height, width, _ = images[0].shape if images else (1, 1, 1)
    rows = max(-(-len(worst) // _COLUMNS), 1)
    across, down = 1 + _GAP, height / width + _LINES  # in image widths; one axes for all: 25 would take seconds
    figure = new_figure(9, 9 * rows * down / (_COLUMNS * across) + 0.4)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title("Worst mistakes: the answer (how surely), the true class, the image's index")
    for place, (image, each) in enumerate(zip(images, worst, strict=True)):
        left, top = place % _COLUMNS * across, place // _COLUMNS * down + _LINES
        shown = image[:, :, 0] if image.shape[2] == 1 else image
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(left, left + 1, top + height / width, top))
        said = f"{short(each['predicted'])} ({each['probability']:.1%})\nnot {short(each['label'])}, #{each['index']}"
        axes.text(left + 0.5, top - 0.03, said, ha="center", va="bottom", fontsize=7)
    axes.set_xlim(-_GAP / 2, _COLUMNS * across - _GAP / 2)
    axes.set_ylim(rows * down, 0)
    if not worst:
        note(axes, "none: every answer was right")
    return figure
