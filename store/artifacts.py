"""What a job leaves for download: a folder of files below its claim, each under a name from a fixed table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from store.files import publish_dir, remove_tree, sha256_of

#: Name → media type of everything that a job may offer. No other name is ever looked for on disk.
MEDIA_TYPES = {
    "report.json": "application/json",
    "metrics.json": "application/json",
    "metrics.csv": "text/csv",
    "per_class.csv": "text/csv",
    "confusion.csv": "text/csv",
    **{
        f"{drawing}.{kind}": media_type
        for drawing in ("curves", "learning_rate", "confusion", "reliability", "mistakes")
        for kind, media_type in (("svg", "image/svg+xml"), ("png", "image/png"))
    },
    "bundle.zip": "application/zip",
    "program.pt2": "application/vnd.pytorch.pt2",
    "model.onnx": "application/vnd.onnx",
    "model.json": "application/json",
}
FOLDER = "artifacts"


class Artifact(BaseModel):
    """One file of a job's result, as the job's record names it. `sha256` in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    media_type: str
    sha256: str


def place(claim_dir: Path) -> Path:
    return claim_dir / FOLDER


@contextmanager
def writing(claim_dir: Path) -> Iterator[Path]:
    """A folder to write artifacts into; at the end it is `place(claim_dir)`, durably, or it is gone."""
    draft = claim_dir / f".{FOLDER}.{uuid4().hex}.tmp"
    draft.mkdir(parents=True)
    try:
        yield draft
        remove_tree(place(claim_dir))  # where a person runs one claim twice
        publish_dir(draft, place(claim_dir))
    except BaseException:
        remove_tree(draft)
        raise


def listed(claim_dir: Path) -> list[Artifact]:
    """The artifacts of a claim, by name; maybe none. Raises KeyError for a file that is not in the table."""
    paths = sorted(place(claim_dir).iterdir()) if place(claim_dir).is_dir() else []
    return [
        Artifact(name=path.name, bytes=path.stat().st_size, media_type=MEDIA_TYPES[path.name], sha256=sha256_of(path))
        for path in paths
    ]
