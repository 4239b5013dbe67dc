"""What was found out about a model on this machine, in `<data>/runtimes/`. All of it can be made again.

`<model>-<version>-<machine>.json` is a `Record`; the folder of the same name holds the converted networks, whose
checksums the record has. A record of other weights, libraries or another processor counts for nothing.
"""

import hashlib
import logging
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from app.engine.runtimes.base import Candidate
from models.manifest import Manifest
from store.control_group import usable_cores
from store.files import remove_tree, sha256_of, write_atomic
from store.settings import Precision, RuntimeName

log = logging.getLogger(__name__)

_FORMAT = 2  # of the record, of converted networks, and of what is measured
_LIBRARIES = ("torch", "openvino", "nncf")


class Measured(BaseModel):
    """A candidate: why it must not serve, or what it gave. Rates in images a second, by batch size under load."""

    model_config = ConfigDict(frozen=True)

    candidate: Candidate
    refused: str | None = None
    deviation: float | None = None
    alone: float = 0.0
    loaded: dict[int, float] = {}
    files: dict[str, str] = {}  # name → sha256: what loading it needs


class Record(BaseModel):
    """`asked` and `runtime` are the settings that the candidates were collected for.

    `max_batch` is the largest batch where a person said it: up to it candidates were measured. `like` is the version
    that the rates were measured with, `name@3`, where that was another one with the same network; None = this one.
    `hardware` is `machine` without the libraries, and with the host: two machines may share a data directory.
    """

    model_config = ConfigDict(frozen=True)

    weights_sha256: str
    machine: str
    hardware: str = ""  # empty in old records, which nobody can tell whose they are
    libraries: tuple[str, ...] = ()
    asked: Precision
    runtime: RuntimeName
    max_batch: int | None = None
    measured: tuple[Measured, ...]
    version: str = ""
    network: str = ""  # `kind_of`; empty in old records, which are like no other
    like: str | None = None


def kind_of(manifest: Manifest) -> str:
    """What a network's rates depend on, beside the machine: two with the same are as fast as each other."""
    network, to = manifest.network, manifest.preprocessing
    flip = " twice" if manifest.test_time_flip else ""
    return f"{network.name} {network.in_channels}x{to.height}x{to.width} {network.num_classes}{flip}"


class Cache:
    """One model version's place under `<data>/runtimes/`, for a device of one type and a number of cores."""

    def __init__(self, root: Path, *, model: str, version: int, device: str, cores: int) -> None:
        self.machine = machine(device, cores)
        self.hardware = hardware(device, cores)
        self.version = f"{model}@{version}"
        self._root = root
        self.name = f"{model}-{version}-{self.machine[:12]}"

    @property
    def folder(self) -> Path:
        """Converted networks; made when asked for."""
        place = self._root / self.name
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return place

    def read(
        self, *, weights_sha256: str, precision: Precision, runtime: RuntimeName, max_batch: int | None = None
    ) -> Record | None:
        """None where there is none for these weights, this machine, and all that these settings let in."""
        record = self._parsed(self._root / f"{self.name}.json", precision, runtime, max_batch)
        return record if record is not None and record.weights_sha256 == weights_sha256 else None

    def kin(
        self, *, network: str, precision: Precision, runtime: RuntimeName, max_batch: int | None = None
    ) -> Record | None:
        """The newest record of another version with the same network, made here for all that these settings let in."""
        others = [file for file in self._root.glob(f"*-{self.machine[:12]}.json") if file.stem != self.name]
        for file in sorted(others, key=_changed, reverse=True):
            record = self._parsed(file, precision, runtime, max_batch)
            if record is not None and record.network == network:
                return record
        return None

    def _parsed(self, file: Path, precision: Precision, runtime: RuntimeName, max_batch: int | None) -> Record | None:
        try:
            record = Record.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("what was measured cannot be read; it is measured again", extra={"reason": str(error)})
            return None
        covers = precision in (record.asked, *_LESS[record.asked])
        has = record.runtime in (RuntimeName.AUTO, runtime)
        fits = record.machine == self.machine and covers and has and record.max_batch == max_batch
        return record if fits else None

    def forget(self) -> None:
        """Let it be measured again."""
        (self._root / f"{self.name}.json").unlink(missing_ok=True)

    def write(self, record: Record) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self._root / f"{self.name}.json", record.model_dump_json(indent=2).encode())

    def sweep_former(self) -> None:
        """Remove what other libraries left of any model for this host's same processor: no start reads it again.

        What another host may read stays, and what does not say whose it is.
        """
        for file in self._root.glob("*.json"):
            try:
                record = Record.model_validate_json(file.read_bytes())
            except (OSError, ValidationError):
                continue
            if record.hardware == self.hardware and record.machine != self.machine:
                remove_tree(self._root / file.stem)
                file.unlink(missing_ok=True)

    def checked(self, files: dict[str, str]) -> Path | None:
        """The folder, if it holds these files unchanged."""
        same = all(
            (self.folder / name).is_file() and sha256_of(self.folder / name) == sha256 for name, sha256 in files.items()
        )
        return self.folder if same else None


_LESS = {
    Precision.EXACT: (),
    Precision.BF16: (Precision.EXACT,),
    Precision.FASTEST: (Precision.BF16, Precision.EXACT),
}


def without_int8(precision: Precision) -> Precision:
    """What another version can tell of: int8 is made and judged with each version's own images."""
    return Precision.BF16 if precision is Precision.FASTEST else precision


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@cache
def machine(device: str, cores: int) -> str:
    """A digest of what rates and compiled code depend on: processor, cores, GPU, libraries."""
    return _digest(str(_FORMAT), *_processors(device, cores), *libraries())


@cache
def hardware(device: str, cores: int) -> str:
    """A digest of what stays when libraries change: host, processor, cores, GPU."""
    return _digest(platform.node(), *_processors(device, cores))


@cache
def libraries() -> tuple[str, ...]:
    return (*map(_version, _LIBRARIES), platform.python_version())


def _processors(device: str, cores: int) -> tuple[str, ...]:
    cpu = next((line for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "")
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return cpu, flags, str(cores), gpu


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def sweep(root: Path, models: Path, *, keep: str) -> None:
    """Remove what belongs to model versions that are gone; `keep` is the name of one that need not be in `models`."""
    for place in root.iterdir() if root.is_dir() else ():
        if place.name.removesuffix(".json") == keep:
            continue
        name, _, rest = place.name.removesuffix(".json").rpartition("-")
        name, _, number = name.rpartition("-")
        if rest and name and number.isdigit() and not (models / name / number).exists():
            remove_tree(place) if place.is_dir() else place.unlink(missing_ok=True)


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"no {library}"


def cores() -> int:
    """Cores that an engine computes on: those it may use, and `OMP_NUM_THREADS` at most where that is set."""
    usable = usable_cores()
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(told)) if told.isdigit() and int(told) > 0 else usable
