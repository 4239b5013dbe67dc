"""How much memory there is, how much of it a step took at its worst, and what that says of larger batches."""

import contextlib
import ctypes
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.recipes import Recipe
from worker.memory import available_bytes
from worker.trainer.split_sizes import Sizes

RESERVE = 0.1  # of what is free: allocators do not fill memory to the last byte, and others use it too


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most bytes that were held while `images` were computed at once."""

    images: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes of a device in all, the whole machine's of a CPU, and those that a training could have."""

    total: int
    free: int


def room(device: torch.device) -> Room:
    """As it is now; what this process holds counts as free, because it ends before the training begins."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Room(total=total, free=free + torch.cuda.memory_reserved(device))
    held = _proc("/proc/self/status")["VmRSS"]
    return Room(total=_proc("/proc/meminfo")["MemTotal"], free=available_bytes() + held)


def described(device: torch.device) -> dict[str, Any]:
    """What computes, and on which machine."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        models = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
    return {"worker": socket.gethostname(), "name": name, "type": device.type}


def _proc(path: str) -> dict[str, int]:
    """The fields in kB of a file of /proc, in bytes."""
    rows = (line.split() for line in Path(path).read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}


class PeakMeter:
    """The peak of this process's memory since `reset`: a CUDA device's, else the machine's, code and libraries too."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def settle(self) -> None:
        """Give back what is kept for later use, so that the next peak tells only of what is computed until then."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            return
        with contextlib.suppress(AttributeError):  # glibc alone has it
            ctypes.CDLL(None).malloc_trim(0)

    def reset(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with contextlib.suppress(OSError):  # where that is not allowed, a larger batch still shows above a smaller one
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device)
        return _proc("/proc/self/status")["VmHWM"]


def data_bytes(recipe: Recipe, sizes: Sizes, *, device_type: str, free: int) -> int:
    """Bytes of prepared images that lie beside the steps of a run that does not stream: a GPU has those of train, where
    half of what it has `free` holds them (`worker/trainer/feed.py`); on a CPU each process has train and val.
    """
    train, val = sizes.train * recipe.canvas**2 * recipe.channels, sizes.val * recipe.image_size**2 * recipe.channels
    if device_type == "cuda":
        return train if train <= free // 2 else 0
    return (train + val) * recipe.devices


def needed(first: Peak, second: Peak, images: int) -> int:
    """Bytes for `images` at once, on the line through two peaks."""
    slope = (second.bytes - first.bytes) / (second.images - first.images)
    return round(first.bytes + max(slope, 0.0) * (images - first.images))


def largest(first: Peak, second: Peak, *, free: int, extra: int) -> int | None:
    """Most images at once for which the line through two peaks, and `extra` bytes, stay below what is free.

    None where the second peak is not above the first: then other things than images took the memory.
    """
    slope = (second.bytes - first.bytes) / (second.images - first.images)
    if slope <= 0:
        return None
    room_for = free * (1 - RESERVE) - extra - first.bytes
    return max(0, first.images + int(room_for / slope))
