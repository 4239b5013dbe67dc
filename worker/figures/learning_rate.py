"""The learning rate over a training."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from worker.figures.canvas import MARK, VAL, new_figure, styled

_MOST_POINTS = 1000


@styled
def learning_rate(
    steps: Sequence[int], values: Sequence[float], *, steps_per_epoch: int, ended: int | None = None
) -> Figure:
    """The learning rate `values[i]` of step `steps[i]` (from 0), over epochs.

    `ended`: after how many steps the training ended; a line where that was before the plan's end.
    """
    figure = new_figure(8, 3.2)
    axes = figure.subplots()
    axes.plot([step / steps_per_epoch for step in steps], values, color=VAL, linewidth=1.5)
    if ended is not None and steps and ended <= steps[-1]:
        axes.axvline(ended / steps_per_epoch, color=MARK, linewidth=1, linestyle="--", label=f"ended: step {ended}")
        axes.legend(loc="best")
    axes.set_title("Learning rate")
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    return figure


def sampled_steps(total: int) -> list[int]:
    """Steps from 0 to `total` - 1 in equal distances, both ends among them; 1,000 at most."""
    if total <= _MOST_POINTS:
        return list(range(total))
    last = total - 1
    return [i * last // (_MOST_POINTS - 1) for i in range(_MOST_POINTS)]
