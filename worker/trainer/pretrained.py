"""Torchvision's ready-made weights: those in `<data>/weights/`, where torchvision downloads them to."""

import errno
import fcntl
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from store.files import sha256_of
from worker.job_process import JobRefused, emit

_SILENCE = 20.0  # seconds without a byte after which a download is given up
_DIGEST = re.compile(r"-([0-9a-f]{8,})\.pth$")  # torchvision's file names end in the first digits of their SHA-256
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_TO_BE_HAD = (OSError, HTTPException, RuntimeError)  # the last is torchvision's for a file of another digest


def torchvision_weights(network: str, weights: str, *, folder: Path, between: Callable[[], None]) -> dict[str, Tensor]:
    """The state dict `weights` of `torchvision/<name>`, on the CPU.

    `folder` is searched for torchvision's own file, and first for one of its name that ends in `.safetensors`.
    Which one it was is told in a `log` line, by its SHA-256: a `.safetensors` file has no digest in its name to be held
    to. `between` is called twice a second; what it raises ends the waiting. Raises JobRefused where there is no such
    file and it cannot be downloaded, or where it is damaged.
    """
    from torchvision.models import get_model_weights  # noqa: PLC0415 - it takes seconds, and few trainings need it

    chosen = get_model_weights(network.removeprefix("torchvision/"))[weights]
    file = folder / Path(urlsplit(chosen.url).path).name
    converted = file.with_suffix(".safetensors")
    if converted.is_file():
        _tell(converted, sha256_of(converted))
        return _safetensors(converted)
    if not file.is_file():
        _download(chosen, file, between)
    expected, digest = _DIGEST.search(file.name), sha256_of(file)
    if expected is None or not digest.startswith(expected[1]):
        raise _damaged(file, "its SHA-256 is not the one in its name")
    _tell(file, digest)
    return _read(chosen, folder)


def _read(chosen: Any, folder: Path) -> dict[str, Tensor]:  # noqa: ANN401 - torchvision ships no types
    """By torchvision's own code, which downloads what is not there; tensors alone are unpickled."""
    state: dict[str, Tensor] = chosen.get_state_dict(
        model_dir=str(folder), progress=False, check_hash=True, map_location="cpu", weights_only=True
    )
    return state


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise _damaged(file, str(error)) from error


def _download(chosen: Any, file: Path, between: Callable[[], None]) -> None:  # noqa: ANN401 - likewise
    """Fetch the file, in a thread, so that this process is heard and hears meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    failures: list[Exception] = []

    def fetch() -> None:
        try:
            _read(chosen, file.parent)
        except Exception as error:  # told by the thread that waits
            failures.append(error)

    with _alone(file.parent, between):
        if file.is_file():  # whoever held the lock before has fetched it
            return
        for left in file.parent.glob("*.partial"):  # by a download that was killed
            left.unlink()
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_SILENCE)
        try:
            thread = threading.Thread(target=fetch, name="download", daemon=True)
            thread.start()
            while thread.is_alive():
                between()
                thread.join(0.5)
        finally:
            socket.setdefaulttimeout(before)
    for error in failures:
        if not isinstance(error, _NOT_TO_BE_HAD) or getattr(error, "errno", None) in _DISK_FULL:
            raise error
        raise JobRefused(
            "weights_unavailable",
            f"{file.name} is not here and cannot be downloaded: {error}",
            f"Place {chosen.url} in the folder weights/ of the data directory, then retry.",
        ) from error


@contextmanager
def _alone(folder: Path, between: Callable[[], None]) -> Iterator[None]:
    """One download at a time, whatever the number of trainers."""
    with (folder / ".lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                between()
                threading.Event().wait(0.5)
        yield


def _tell(file: Path, digest: str) -> None:
    """In the job's events: where the first weights come from."""
    emit("log", {"message": f"takes weights/{file.name}", "file": file.name, "sha256": digest})


def _damaged(file: Path, reason: str) -> JobRefused:
    return JobRefused(
        "weights_damaged", f"weights/{file.name} is damaged: {reason}", "Remove it, or place it there again."
    )
