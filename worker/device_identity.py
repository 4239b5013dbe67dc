"""Which hardware a device's name means here, as a part of a file's name; without torch, which the worker never imports.

Machines that share a data directory all call their first GPU `cuda:0`, and so do two containers on one machine that
were given a GPU each. What tells GPUs apart is their UUID, which the NVIDIA driver shows below /proc.
"""

import hashlib
import os
import re
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_UUID = re.compile(r"^GPU UUID:\s+(GPU-[0-9a-f-]+)$", re.MULTILINE)
_MINOR = re.compile(r"^Device Minor:\s+(\d+)$", re.MULTILINE)


def host() -> str:
    """This machine's name; its hash where that is odd."""
    name = socket.gethostname()
    return name if _PLAIN.fullmatch(name) else hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]


@cache
def identity(device: str) -> str:
    """The GPU's UUID where the driver tells it, else the machine's name and the device's; one for each way to name it.

    `auto` is the first GPU where the machine has one, else the CPU; `cuda` is the first GPU.
    """
    if device == "auto":
        device = "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    kind, _, index = device.partition(":")
    if kind == "cuda":
        found = gpu(int(index or 0), os.environ.get("CUDA_VISIBLE_DEVICES"))
        return found or f"{host()}-cuda-{int(index or 0)}"
    return f"{host()}-{device.replace(':', '-')}"


def gpu(
    index: int, visible: str | None, *, told: Path = Path("/proc/driver/nvidia/gpus"), nodes: Path = Path("/dev")
) -> str | None:
    """The UUID of GPU `index` of those that CUDA_VISIBLE_DEVICES leaves `visible`, None where it is not known.

    GPUs count in the order of their slots. CUDA may count unlike ones by speed: each has a name of its own even so.
    """
    here = [found for slot in sorted(told.glob("*/information")) if (found := _uuid(slot, nodes)) is not None]
    if visible is None:
        return here[index] if index < len(here) else None
    entries = [entry.strip() for entry in visible.split(",")]
    return _meant(entries[index], here) if index < len(entries) else None


def _meant(entry: str, here: list[str]) -> str | None:
    """The GPU of an entry of CUDA_VISIBLE_DEVICES: a number, the beginning of a UUID, or the UUID of a part (MIG)."""
    if entry.isdecimal():
        return here[int(entry)] if int(entry) < len(here) else None
    if entry.startswith("MIG-") and _PLAIN.fullmatch(entry):
        return entry
    return next((uuid for uuid in here if entry and uuid.startswith(entry)), None)


def _uuid(information: Path, nodes: Path) -> str | None:
    """None for a GPU without a device file: a container may see more GPUs below /proc than it may use."""
    minor = _MINOR.search(information.read_text())
    node = nodes / f"nvidia{minor[1]}" if minor else None
    if node is None or not node.exists():
        return None
    if (found := _UUID.search(information.read_text())) is None:
        # Question marks stand there until somebody opens the device.
        with suppress(OSError):
            opened = os.open(node, os.O_RDWR | os.O_CLOEXEC)
            try:
                found = _UUID.search(information.read_text())
            finally:
                os.close(opened)
    return found[1] if found else None
