"""Loss and accuracy of each epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from worker.figures.canvas import MARK, TRAIN, VAL, new_figure, note, styled

_MOST_LABELS = 12


@styled
def curves(history: Sequence[Mapping[str, Any]], *, kept_epoch: int | None) -> Figure:
    """Top-1 and loss, of training and validation, over epochs; val top-1 is written at its points, in percent.

    `history` holds epoch events: `epoch` from 1, `train` and `val`, each with `loss` and `top1`; `val` is null where
    nothing is held out: train's top-1 is written then. `kept_epoch` is the one whose weights became the model.
    """
    figure = new_figure(8, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [int(entry["epoch"]) for entry in history]
    for axes, name, title in ((above, "top1", "Top-1 accuracy"), (below, "loss", "Loss")):
        axes.set_title(title)
        if not history:
            note(axes, "no epoch has ended yet")
            continue
        for part, label, colour in _drawn(history):
            values = [float(entry[part][name]) for entry in history]
            axes.plot(epochs, values, color=colour, marker="o", markersize=3, linewidth=1.5, label=label)
        if kept_epoch in epochs:
            axes.axvline(kept_epoch, color=MARK, linewidth=1, linestyle="--", label=f"kept: epoch {kept_epoch}")
    if history:
        _write_values(above, history)
        above.yaxis.set_major_formatter(PercentFormatter(1.0))
        above.margins(y=0.16)  # room for the numbers beside their points
        above.legend(loc="lower right", ncols=3)
        below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    below.set_xlabel("epoch")
    return figure


def _drawn(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The curves: the part of an epoch event, its name and its colour."""
    train, val = ("train", "training", TRAIN), ("val", "validation", VAL)
    return [train, val] if all(entry["val"] is not None for entry in history) else [train]


def labelled(values: Sequence[float], *, most: int) -> list[int]:
    """Which points carry their number: all of up to `most`, else the first, the best, the last, and some between.

    Indices in order. Those between lie in equal steps, and none beside one of the three.
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    chosen = {0, max(range(count), key=values.__getitem__), count - 1}
    step = -(-count // (most - len(chosen)))  # rounded up
    room = step // 2
    between = {i for i in range(step, count, step) if all(abs(i - other) > room for other in chosen)}
    return sorted(chosen | between)


def _write_values(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """The last curve's top-1 in percent, on that side of its point on which the curve of training is not."""
    part, _, colour = _drawn(history)[-1]
    values = [float(entry[part]["top1"]) for entry in history]
    for i in labelled(values, most=_MOST_LABELS):
        under = values[i] <= float(history[i]["train"]["top1"])
        axes.annotate(
            f"{values[i]:.2%}".removesuffix("%"),
            (int(history[i]["epoch"]), values[i]),
            xytext=(0, -5 if under else 5),
            textcoords="offset points",
            ha="center",
            va="top" if under else "bottom",
            fontsize=7.5,
            color=colour,
        )
