"""An exported bundle becomes a model version again: everything is in it, and it must reproduce its golden outputs."""

import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from models import golden, runtime
from models.manifest import GOLDEN, MANIFEST, WEIGHTS, Manifest
from store import class_names
from worker.adopter.task import Task, known
from worker.job_process import JobRefused, out_of_memory

_MANIFEST_BYTES = 16 * 2**20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # the bit of a member's flags


def adopt_bundle(task: Task) -> dict[str, Any]:
    """Write the version to `task.draft`; its lineage then tells how it came here. Raises JobRefused."""
    given = [name for name in ("network", "classes", "preprocessing") if getattr(task.spec, name) is not None]
    if given:
        raise JobRefused("bundle_is_complete", f"the bundle has its own {given[0]}", f"Leave {given[0]} out.")
    task.begin("read")
    try:
        _unpack(task.upload, task.draft)
        manifest = Manifest.read(task.draft)
        if reason := class_names.unclear(manifest.classes):
            raise ValueError(reason)
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError) as error:
        raise JobRefused("broken_file", f"the bundle is broken: {error}", "Upload it again, in full.") from error
    task.begin("match")
    known(manifest.network.name)
    if len(manifest.classes) != manifest.network.num_classes:
        message = f"the bundle names {len(manifest.classes)} classes for {manifest.network.num_classes} outputs"
        raise JobRefused("classes_differ", message, "Correct its model.json.")
    task.begin("compare")
    try:
        loaded = runtime.load(task.draft, "cpu")
        deviation = golden.check(loaded, task.draft)
    except (ValueError, RuntimeError, SafetensorError) as error:  # also of files that nobody but their digests fits
        if out_of_memory(error):
            raise
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
            if member.compress_type not in _PACKED or member.flag_bits & _ENCRYPTED:
                raise ValueError(f"{name} is packed in another way than `resnetd export` packs it")
            most = _MANIFEST_BYTES if name == MANIFEST else 2 * upload.stat().st_size
            if member.file_size > most:
                raise ValueError(f"{name} unpacks to {member.file_size:,} bytes")
            with archive.open(member) as source, (draft / name).open("wb") as target:
                shutil.copyfileobj(source, target)
