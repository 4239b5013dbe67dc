"""An exported bundle becomes a model version again: everything is in it, and it must reproduce its golden outputs."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

from models import golden, runtime
from models.manifest import GOLDEN, MANIFEST, WEIGHTS, Manifest
from models.runtime import ModelDamagedError
from worker.adopter.task import Task, known
from worker.job_process import JobRefused

_MANIFEST_BYTES = 16 * 2**20


def adopt_bundle(task: Task) -> dict[str, Any]:
    """Write the version to `task.draft`; its lineage then tells how it came here. Raises JobRefused."""
    given = [name for name in ("network", "classes", "preprocessing") if getattr(task.spec, name) is not None]
    if given:
        raise JobRefused("bundle_is_complete", f"the bundle has its own {given[0]}", f"Leave {given[0]} out.")
    task.begin("read")
    try:
        _unpack(task.upload, task.draft)
        manifest = Manifest.read(task.draft)
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise JobRefused("broken_file", f"the bundle is broken: {error}", "Upload it again, in full.") from error
    task.begin("match")
    known(manifest.network.name)
    task.begin("compare")
    try:
        loaded = runtime.load(task.draft, "cpu")
        deviation = golden.check(loaded, task.draft)
    except ModelDamagedError as error:
        raise JobRefused("broken_file", f"the bundle is damaged: {error}", "Upload it again, in full.") from error
    task.begin("write")
    lineage = manifest.lineage.model_copy(update={"job": task.job, "origin": task.origin})
    # The images for int8 stay where the model was trained: they are training data, and no part of a bundle.
    manifest.model_copy(update={"lineage": lineage, "calibration_sha256": None}).write(task.draft)
    return {"network": manifest.network.name, "parameters": manifest.parameters, "golden_deviation": deviation}


def _unpack(upload: Path, draft: Path) -> None:
    """The bundle's three files. They cannot unpack to more than they say, which is looked at first."""
    with zipfile.ZipFile(upload) as archive:
        members = {member.filename.rpartition("/")[2]: member for member in archive.infolist()}
        for name in (MANIFEST, WEIGHTS, GOLDEN):
            member = members[name]
            most = _MANIFEST_BYTES if name == MANIFEST else 2 * upload.stat().st_size
            if member.file_size > most:
                raise ValueError(f"{name} unpacks to {member.file_size:,} bytes")
            with archive.open(member) as source, (draft / name).open("wb") as target:
                shutil.copyfileobj(source, target)
