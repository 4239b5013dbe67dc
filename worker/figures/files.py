"""Drawings as files of a job."""

import traceback
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from store.files import write_atomic
from worker.figures import canvas
from worker.job_process import emit


def draw(folder: Path, name: str, make: Callable[[], Figure]) -> None:
    """Write `<name>.svg` and `<name>.png`, each whole or absent.

    A drawing that fails is a warning: hours of computing are not lost to it. A full disk is not the drawing's fault.
    """
    try:
        figure = make()
        files = {"svg": canvas.svg(figure), "png": canvas.png(figure)}
    except MemoryError:
        raise
    except Exception as error:
        traceback.print_exc()
        emit("warning", {"code": "not_drawn", "message": f"{name} could not be drawn: {type(error).__name__}: {error}"})
        return
    for kind, content in files.items():
        write_atomic(folder / f"{name}.{kind}", content)
