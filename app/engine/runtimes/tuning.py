"""Everything that may serve a model here, built, proven and measured."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.engine.runtimes import gates, measure
from app.engine.runtimes.base import Candidate, Loaded, Unavailable, candidates
from app.engine.runtimes.choose import choose
from app.engine.runtimes.loading import build, load
from app.engine.runtimes.records import Cache, Measured, Record, kind_of, libraries
from models import golden, probes
from models.runtime import Runtime
from store.files import sha256_of
from store.settings import Precision, RuntimeName

log = logging.getLogger(__name__)

_NOT_YET = "it was not built in time"


def tune(
    reference: Runtime,
    folder: Path,
    cache: Cache,
    *,
    precision: Precision,
    runtime: RuntimeName,
    max_batch: int | None,
    cores: int,
) -> Iterator[Record]:
    """Records, each better than the one before: without what takes minutes to build, and then with it.

    `max_batch` is the largest batch where a person said it, None where it is to be found.
    """
    every = candidates(reference.device.type, precision=precision, runtime=runtime)
    slow = [each for each in every if each.runtime is RuntimeName.COMPILED]
    tried = _try([each for each in every if each not in slow], reference, folder, cache, cores=cores)
    fast = any(each.runtime is RuntimeName.OPENVINO for each in tried.ready)
    if slow and fast and runtime is RuntimeName.AUTO:
        tried.refuse(slow[0], "OpenVINO is faster on CPUs and sooner built")
        slow = []
    for each in slow:
        tried.refuse(each, _NOT_YET)
    yield _record(reference, cache, tried, asked=precision, runtime=runtime, max_batch=max_batch)
    if slow:
        tried.add(_try(slow, reference, folder, cache, cores=cores))
        yield _record(reference, cache, tried, asked=precision, runtime=runtime, max_batch=max_batch)


def take_over(
    reference: Runtime,
    folder: Path,
    cache: Cache,
    kin: Record,
    *,
    precision: Precision,
    runtime: RuntimeName,
    cores: int,
) -> Record | None:
    """A record with the rates of `kin`, which has the same network: only what served there best is built and proven.

    None where that takes minutes to build, or is not near enough to this network's float32 outputs.
    """
    best = choose(kin.measured, precision=precision, runtime=runtime)
    if best is None or best.candidate.runtime is RuntimeName.COMPILED:
        return None
    found = _try([best.candidate], reference, folder, cache, cores=cores).found[best.candidate]
    if found.refused is not None:
        return None
    like = kin.like or kin.version
    return Record(
        weights_sha256=reference.manifest.weights_sha256,
        machine=cache.machine,
        hardware=cache.hardware,
        libraries=libraries(),
        asked=precision,
        runtime=runtime,
        max_batch=kin.max_batch,
        measured=(found.model_copy(update={"alone": best.alone, "loaded": best.loaded}),),
        version=cache.version,
        network=kin.network,
        like=None if like == cache.version else like,
    )


class _Tried:
    def __init__(self) -> None:
        self.ready: dict[Candidate, Loaded] = {}
        self.found: dict[Candidate, Measured] = {}

    def refuse(self, candidate: Candidate, reason: str) -> None:
        self.found[candidate] = Measured(candidate=candidate, refused=reason)

    def add(self, other: "_Tried") -> None:
        self.ready |= other.ready
        self.found |= other.found


def _try(which: list[Candidate], reference: Runtime, folder: Path, cache: Cache, *, cores: int) -> _Tried:
    """Build, load and judge each; one that fails, for whatever reason, is refused, and the others go on."""
    tried = _Tried()
    images = probes.read(folder, reference.manifest)
    proof = golden.read(folder, reference.manifest)
    for candidate in which:
        began = time.monotonic()
        try:
            names = build(candidate, reference, cache.folder, probes=images)
            loaded = load(candidate, lambda: reference, cache.folder, device=str(reference.device), cores=cores)
            verdict = gates.judge(
                loaded, numbers=candidate.numbers, manifest=reference.manifest, golden=proof, probes=images
            )
        except Unavailable as error:
            tried.refuse(candidate, str(error))
        except Exception as error:  # a library that fails costs its own candidate, not the engine
            log.exception("a runtime failed", extra={"candidate": str(candidate)})
            tried.refuse(candidate, f"{type(error).__name__}: {str(error)[:200]}")
        else:
            tried.found[candidate] = Measured(
                candidate=candidate,
                refused=verdict.refused,
                deviation=verdict.deviation,
                files={name: sha256_of(cache.folder / name) for name in names},
            )
            if verdict.refused is None:
                tried.ready[candidate] = loaded
        took = round(time.monotonic() - began, 1)
        log.info(
            "tried", extra={"candidate": str(candidate), "seconds": took, "refused": tried.found[candidate].refused}
        )
    return tried


def _record(
    reference: Runtime,
    cache: Cache,
    tried: _Tried,
    *,
    asked: Precision,
    runtime: RuntimeName,
    max_batch: int | None,
) -> Record:
    sizes = measure.sizes(reference.device.type, max_batch=max_batch)
    rates = measure.rates(tried.ready, reference.manifest.preprocessing, sizes=sizes, max_batch=max_batch)
    measured = [
        each.model_copy(update=_told(rates[name])) if name in rates else each for name, each in tried.found.items()
    ]
    return Record(
        weights_sha256=reference.manifest.weights_sha256,
        machine=cache.machine,
        hardware=cache.hardware,
        libraries=libraries(),
        asked=asked,
        runtime=runtime,
        max_batch=max_batch,
        measured=tuple(measured),
        version=cache.version,
        network=kind_of(reference.manifest),
    )


def _told(rates: measure.Rates) -> dict[str, Any]:
    """The fields of `Measured` that are known when it has been measured, or could not be."""
    loaded = {size: round(rate, 2) for size, rate in rates.loaded.items()}
    return {"refused": rates.failed, "alone": round(rates.alone, 2), "loaded": loaded}
