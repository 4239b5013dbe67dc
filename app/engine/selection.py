"""Which runtime an engine serves with: at load what measuring found before, else the reference until it has."""

import logging
import subprocess
import sys
from asyncio import create_subprocess_exec
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.batch import MAX_BATCH, Computing
from app.engine.runtimes import gates
from app.engine.runtimes.base import REFERENCE, Candidate, Loaded, Unavailable
from app.engine.runtimes.choose import batching, choose, wide_pays
from app.engine.runtimes.loading import load
from app.engine.runtimes.records import Cache, Measured, Record, cores, kind_of, without_int8
from models import golden
from models import runtime as reference_runtime
from models.runtime import Runtime, read_manifest, read_weights, resolve_device
from store.layout import Layout
from store.process import child_environment
from store.settings import Precision, RuntimeName, Settings

log = logging.getLogger(__name__)

_QUICK = 50.0  # lone images a second: the event loop is held up by one for 20 ms, at most
_LIKE_SECONDS = 20.0  # for what another version serves with; after them the reference does: clients wait for 30 s
_UNMEASURED_BATCH = 8  # on a CPU, where a large batch of a large network takes seconds


@dataclass(frozen=True, kw_only=True)
class Selected:
    """What serves now, and how `GET /v1/models/{model}` tells of it."""

    computing: Computing
    shown: dict[str, Any]


class Selection:
    """The runtimes of one model version on this machine."""

    def __init__(self, folder: Path, *, model: str, version: int, device: str, settings: Settings) -> None:
        """Raises ModelDamagedError where there is no manifest or the weights are not its, and ValueError for an absent
        device.
        """
        self.manifest = read_manifest(folder)
        read_weights(folder, self.manifest)
        resolved = resolve_device(device)
        self.device = str(resolved)
        self._on_cpu = resolved.type == "cpu"  # `cpu:0` is one too
        self.reference: Callable[[], Runtime] = cache(lambda: reference_runtime.load(folder, self.device))
        self._folder = folder
        self._settings = settings
        names = ("--model", model, "--version", str(version), "--device", self.device)
        self._tuning = (sys.executable, "-m", "app.engine.runtimes", str(folder), *names)
        self._limits = settings.batch_limits(model)
        self._cache = Cache(
            Layout(settings.data).runtimes, model=model, version=version, device=self.device, cores=cores()
        )

    @property
    def measures(self) -> bool:
        """Whether there is anything to choose from."""
        return self._settings.runtime is not RuntimeName.EAGER

    @property
    def complete(self) -> bool:
        """Whether all that may serve this version was measured, or cannot be."""
        record = self._record(self._settings.precision)
        return not self.measures or (record is not None and record.like is None)

    def known(self) -> Selected | None:
        """The runtime that was measured to be best here, proven once more; None where it has to be measured."""
        return self._known(self._settings.precision) if self.measures else None

    def like_another(self) -> Selected | None:
        """What another version with the same network was measured to be best with, where that fits this one too.

        It takes seconds, in which a process of its own makes and proves it. It serves until this version was measured.
        """
        if not self.measures:
            return None
        precision = without_int8(self._settings.precision)
        own = self._known(precision)
        if own is not None:
            return own
        kin = self._kin(precision)
        if kin is None:
            return None
        try:
            ended = subprocess.run(
                [*self._tuning, "--like"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=child_environment(),
                timeout=_LIKE_SECONDS,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            log.warning("what serves another version is not had", extra={"like": kin.version, "reason": str(error)})
            return None
        return self._known(precision) if ended.returncode == 0 else None

    def _known(self, precision: Precision) -> Selected | None:
        record = self._record(precision)
        if record is None:
            return None
        best = choose(record.measured, precision=precision, runtime=self._settings.runtime)
        if best is None:
            return None
        try:
            loaded = self._load(best)
            if loaded.narrow and not wide_pays(best, streams=loaded.streams):
                loaded = replace(loaded, wide=loaded.narrow)
            most, delay = batching(best.loaded, streams=loaded.streams)
            return self._selected(best.candidate, loaded, most=most, delay_ms=delay, record=record)
        except Exception as error:  # whatever a library says: the reference serves, and all is measured again
            log.warning("a runtime cannot be used again", extra={"runtime": str(best.candidate), "reason": str(error)})
            self._cache.forget()
            return None

    def reference_serves(self) -> Selected:
        """The float32 network as it was trained. Raises ModelDamagedError where it does not give its golden outputs."""
        runtime = self.reference()
        golden.check(runtime, self._folder)
        loaded = load(REFERENCE, lambda: runtime, self._folder, device=self.device, cores=cores())
        most = MAX_BATCH if loaded.narrow is None and not self._on_cpu else _UNMEASURED_BATCH
        return self._selected(REFERENCE, loaded, most=most, delay_ms=0.0, record=None)

    async def measure(self) -> bool:
        """Find out what serves fastest, in a process of its own. Whether `known` knows it now."""
        process = await create_subprocess_exec(
            *self._tuning, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=child_environment()
        )
        try:
            status = await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
            raise
        if status != 0:
            log.warning("runtimes were not measured", extra={"status": status})
        return status == 0

    def _record(self, precision: Precision) -> Record | None:
        return self._cache.read(
            weights_sha256=self.manifest.weights_sha256,
            precision=precision,
            runtime=self._settings.runtime,
            max_batch=self._limits.images,
        )

    def _kin(self, precision: Precision) -> Record | None:
        return self._cache.kin(
            network=kind_of(self.manifest),
            precision=precision,
            runtime=self._settings.runtime,
            max_batch=self._limits.images,
        )

    def _load(self, best: Measured) -> Loaded:
        """Raises Unavailable where it is no longer what was measured."""
        files = self._cache.checked(best.files)
        if files is None:
            raise Unavailable("its files are gone or changed")
        loaded = load(best.candidate, self.reference, files, device=self.device, cores=cores())
        verdict = gates.golden_only(
            loaded,
            numbers=best.candidate.numbers,
            manifest=self.manifest,
            golden=golden.read(self._folder, self.manifest),
        )
        if verdict.refused:
            raise Unavailable(verdict.refused)
        return loaded

    def _selected(
        self, candidate: Candidate, loaded: Loaded, *, most: int, delay_ms: float, record: Record | None
    ) -> Selected:
        most, delay_ms = self._limits.over(most, delay_ms)
        rates = _rates(_measured(record).get(candidate))
        computing = Computing(
            wide=loaded.wide,
            narrow=loaded.narrow,
            streams=loaded.streams,
            max_batch=most,
            max_delay=delay_ms / 1000,
            makes=self._on_cpu,
            quick=loaded.narrow is not None and rates is not None and rates["alone"] >= _QUICK,
        )
        to = self.manifest.preprocessing
        sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
        passes = [(loaded.narrow or loaded.wide, size) for size in (*sizes, most) for _ in range(loaded.copies)]
        for compute, images in ((loaded.wide, 1), *passes):
            compute(np.zeros((images, to.height, to.width, to.channels), dtype=np.uint8))  # a size's first pass is slow
        return Selected(computing=computing, shown=_shown(candidate, computing, record))


def _measured(record: Record | None) -> dict[Candidate, Measured]:
    return {each.candidate: each for each in record.measured} if record else {}


def _shown(candidate: Candidate, computing: Computing, record: Record | None) -> dict[str, Any]:
    """`images_per_second` is null where nothing was measured; `like` is another version, which it was measured with."""
    measured = _measured(record)
    return {
        "name": candidate.runtime,
        "precision": candidate.numbers,
        "images_per_second": _rates(measured.get(candidate)),
        "like": record.like if record else None,
        "max_batch": computing.max_batch,
        "max_delay_ms": round(computing.max_delay * 1000, 2),
        "streams": computing.streams,
        "candidates": [
            {
                "name": name.runtime,
                "precision": name.numbers,
                "images_per_second": None if each.refused else _rates(each),
                "refused": each.refused,
            }
            for name, each in measured.items()
        ],
    }


def _rates(each: Measured | None) -> dict[str, Any] | None:
    """One image at a time with all cores, and under load by batch size with one core for each batch."""
    if each is None:
        return None
    return {"alone": each.alone, "loaded": {str(size): rate for size, rate in each.loaded.items()}}
