"""How every drawing looks, and how it becomes a file: the same figures give the same bytes, as SVG and as PNG.

Figures are built without pyplot, which keeps every figure alive and looks for a screen.
"""

import io
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, PALE, GRID = "#1b1f24", "#6b737c", "#dfe3e8"
TRAIN, VAL, MARK = "#8a929c", "#1f5aa6", "#c2410c"
_LABEL_LETTERS = 18
_DPI = 120
_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $5
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "legend.frameon": False,
    "image.composite_image": False,  # each image with its own pixels
    "svg.fonttype": "none",  # letters stay letters: small files, any script, to be found and copied
    "svg.hashsalt": "resnetd",  # else the ids of shapes are random
}

_P = ParamSpec("_P")


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """A drawing function, in this project's style."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are declared as one long Literal
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its size in inches; its parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure) -> bytes:
    return _saved(figure, "svg", {"Date": None, "Creator": None, "Format": None, "Type": None})


def png(figure: Figure) -> bytes:
    return _saved(figure, "png", {"Software": None})


def clean(text: str) -> str:
    """Class names come from archives: XML forbids most control characters even escaped."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def short(name: str) -> str:
    """A class's name as it stands beside a drawing: clean, 18 letters at most."""
    name = clean(name)
    return name if len(name) <= _LABEL_LETTERS else name[: _LABEL_LETTERS - 1] + "…"


def note(axes: Axes, text: str) -> None:
    """A sentence where there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=PALE, transform=axes.transAxes)


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    file = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():  # type: ignore[arg-type]  # as above
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # PNG: the font lacks some scripts
        figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    return file.getvalue()
