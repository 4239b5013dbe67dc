"""An uploaded file as tensors: what it is, told by its content; a pickle is read by a disposable process alone."""

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.manifest import MANIFEST, WEIGHTS
from store.process import child_environment
from worker.job_process import REFUSED, JobRefused, Stop

Format = Literal["safetensors", "torch", "bundle"]

_SAFETENSORS_HINT = "Save it with safetensors.torch.save_file(model.state_dict(), …)."
_WHAT = "Upload a state dict (.safetensors, or .pth by torch.save) or a bundle that `resnetd export` wrote."
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_POLL_SECONDS = 0.2
_LARGEST_HEADER = 100_000_000  # bytes; what the format allows
_SAID = 4096  # bytes of a refusal


def format_of(upload: Path) -> Format:
    """Raises JobRefused for a file of no kind that is read here."""
    with upload.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04":
        return _zipped(upload)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header <= min(_LARGEST_HEADER, upload.stat().st_size):
        return "safetensors"
    if head.startswith(_PICKLE):
        return "torch"
    if tarfile.is_tarfile(upload):
        raise JobRefused("unsupported_file", "the file is a tar archive", _WHAT)
    raise JobRefused("unsupported_file", "the file is neither safetensors nor a PyTorch file", _WHAT)


def _zipped(upload: Path) -> Format:
    try:
        with zipfile.ZipFile(upload) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        # All that zipfile raises over hostile headers; NotImplementedError: a zip version that it cannot read.
        raise JobRefused("broken_file", f"the file is a broken zip: {error}", "Upload it again, in full.") from error
    names = {member.filename.rpartition("/")[2] for member in members}
    if {MANIFEST, WEIGHTS} <= names:
        return "bundle"
    if "data.pkl" not in names or "constants.pkl" in names:
        kind = "a TorchScript program" if "constants.pkl" in names else "a zip of something else"
        raise JobRefused("unsupported_file", f"the file is {kind}", _WHAT)
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > upload.stat().st_size:
        raise JobRefused("broken_file", "the file is not as torch.save writes it", "Save it anew with torch.save.")
    return "torch"


def read(upload: Path, kind: Format, *, scratch: Path, stop: Stop) -> dict[str, Tensor]:
    """The tensors of a `safetensors` or `torch` file by name. Raises JobRefused. `scratch` is a file to be made."""
    if kind == "safetensors":
        return _load(upload)
    try:
        _unpickle(upload, scratch, stop)
        return _load(scratch)
    finally:
        scratch.unlink(missing_ok=True)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise JobRefused("broken_file", f"the file is broken: {error}", _SAFETENSORS_HINT) from error


def _started(command: list[str], out: IO[bytes], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """With SIGTERM blocked: it goes to the whole group, means this process, and must not pass for a broken file."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unpickle(upload: Path, scratch: Path, stop: Stop) -> None:
    """Have the pickle read, and its tensors written to `scratch`. Raises JobRefused, JobStopped."""
    command = [sys.executable, "-m", "worker.adopter.unpickling", str(upload)]
    kept = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "LANG", "RESNETD_PARENT_PID")
    environment = {name: value for name, value in child_environment().items() if name in kept}
    with scratch.open("xb") as out, _started(command, out, environment) as process:
        try:
            while process.poll() is None:
                stop.check()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
        finally:
            process.kill()
    if process.returncode == REFUSED:
        with scratch.open("rb") as file:
            why = file.read(_SAID).decode(errors="replace")
        hint = "Save model.state_dict(), not the model itself, with torch.save, or use safetensors."
        raise JobRefused("unreadable_file", f"the file cannot be read: {why}", hint)
    if process.returncode != os.EX_OK:
        reason = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
        message = f"the process that read the file ended with {reason}: it is broken, or hostile"
        raise JobRefused("unreadable_file", message, _SAFETENSORS_HINT)
