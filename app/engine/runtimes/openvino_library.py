"""The only place that imports OpenVINO and NNCF: their telemetry is shut out before either is loaded.

Both report each import and conversion over the network where the package `openvino_telemetry` can be imported, and both
do without where it cannot.
"""

import sys
from typing import Any

from app.engine.runtimes.base import Unavailable


def openvino_library() -> Any:  # noqa: ANN401 - it ships no types
    """Raises Unavailable where it is not installed."""
    _no_telemetry()
    try:
        import openvino  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, absent on some machines, and without types
    except ImportError as error:
        raise Unavailable(f"openvino cannot be imported: {error}") from error
    return openvino


def nncf_library() -> Any:  # noqa: ANN401 - it ships no types
    """Raises Unavailable where it is not installed."""
    _no_telemetry()
    try:
        import nncf  # type: ignore[import-untyped]  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise Unavailable(f"nncf cannot be imported: {error}") from error
    return nncf


def _no_telemetry() -> None:
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # how Python says: cannot be imported
