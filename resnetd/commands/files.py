"""Files that commands leave: what a job made, with a progress bar on a terminal, and pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd.commands import bars
from resnetd.errors import Refused

if TYPE_CHECKING:
    from resnetd.client import Client


def download_all(client: "Client", job_id: str, folder: Path) -> list[Path]:
    """Write every file of a job into `folder`, which is made where it is missing; their paths. Raises Refused."""
    found = client.artifacts(job_id)
    if not found:
        raise Refused(f"Job {job_id} made no files.", f"`resnetd jobs show {job_id}` tells what became of it.")
    saved = [folder / Path(each["name"]).name for each in found]
    with writing_to(folder), bars.of_bytes("Downloading", sum(each["bytes"] for each in found)) as on_bytes:
        for artifact, target in zip(found, saved, strict=True):
            client.download(artifact, target, on_bytes=on_bytes)
    return saved


def save(content: bytes, path: Path, *, option: str) -> None:
    """Raises Refused, which names the option that says where, where the disk does not take it."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}.", f"Name a file that can be written with {option}.") from error


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing. Raises Refused where the disk does not take it, or what is written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise Refused(f"{folder}: {error.strerror}.", "Name a folder that can be written to.") from error
