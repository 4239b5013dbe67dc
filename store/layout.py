"""Where everything lies under the data directory."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from store.files import make_dir

_UNIX_PATH_MAX = 100  # sun_path holds 108 bytes, the terminating NUL and a suffix included


@dataclass(frozen=True)
class Layout:
    """The data directory as named places. Creates nothing but what `create` says."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.expanduser().resolve())

    def create(self) -> "Layout":
        for place in (self.datasets, self.jobs, self.models, self.uploads, self.redis, self.locks, self.run):
            make_dir(place)
        self.run.chmod(0o700)
        return self

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def weights(self) -> Path:
        """Torchvision's ready-made weights: downloaded once, or placed there by somebody."""
        return self.root / "weights"

    @property
    def uploads(self) -> Path:
        """Bodies still arriving; a file here was never acknowledged."""
        return self.root / "uploads"

    @property
    def runtimes(self) -> Path:
        """What engines found out about models on this machine, and networks converted for it. May be removed."""
        return self.root / "runtimes"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def keys(self) -> Path:
        return self.root / "keys.json"

    @property
    def run(self) -> Path:
        """Sockets of running processes: in the data directory, or in /tmp where its path is too long for a socket."""
        inside = self.root / "run"
        if len(os.fsencode(inside)) <= _UNIX_PATH_MAX - 40:
            return inside
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"resnetd-{os.getuid()}-{digest}"

    @property
    def redis_socket(self) -> Path:
        return self.run / "redis.sock"

    @property
    def fleet_socket(self) -> Path:
        return self.run / "fleet.sock"

    @property
    def routes(self) -> Path:
        """The routing table that the fleet writes and every HTTP process reads."""
        return self.run / "routes.json"

    @property
    def served(self) -> Path:
        """Which version served each alias last: what the fleet needs of the time before its start."""
        return self.root / "served.json"

    def dataset(self, dataset_id: str) -> Path:
        return self.datasets / dataset_id

    def job(self, job_id: str) -> Path:
        return self.jobs / job_id
