"""The logits so far, in files of the claims, so that an evaluation that was killed goes on where it was.

`claim-<n>/logits-<first>-<stop>` holds the logits of images first to stop - 1: the SHA-256 of what follows, then
float32 (stop - first, K) as little-endian bytes. A file that is not whole is passed over, and its images are computed
again.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store.files import write_atomic
from worker.trainer.metrics import Logits

_NAME = re.compile(r"logits-(\d+)-(\d+)")
_DIGEST_BYTES = hashlib.sha256().digest_size


class Predictions:
    """Logits of images 0 to `done` - 1, of `classes` classes each."""

    def __init__(self, run_dir: Path, claim_dir: Path, *, classes: int) -> None:
        self._run_dir, self._claim_dir, self._classes = run_dir, claim_dir, classes
        self._parts: list[npt.NDArray[np.float32]] = []
        self._new: list[npt.NDArray[np.float32]] = []  # those of the parts that no file has
        self._kept = self.done = 0

    def restore(self) -> None:
        """Take up what any claim has kept, from the first image on without a gap."""
        while part := self._find(self.done):
            self._parts.append(part[0])
            self.done += len(part[0])
        self._kept = self.done

    def add(self, logits: Logits) -> None:
        """The logits of the next images."""
        self._parts.append(logits)
        self._new.append(logits)
        self.done += len(logits)

    def keep(self) -> bool:
        """Write what is new to this claim's folder, durably; False where nothing is."""
        if self._kept == self.done:
            return False
        body = np.concatenate(self._new).astype("<f4").tobytes()
        self._claim_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(self._claim_dir / f"logits-{self._kept}-{self.done}", hashlib.sha256(body).digest() + body)
        self._kept = self.done
        self._new.clear()
        return True

    def logits(self) -> Logits:
        """All of them, (done, K)."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate(self._parts)] if self._parts else [np.empty((0, self._classes), np.float32)]
        return self._parts[0]

    def _find(self, first: int) -> tuple[Logits] | None:
        for path in sorted(self._run_dir.glob(f"claim-*/logits-{first}-*"), reverse=True):
            match = _NAME.fullmatch(path.name)
            data = path.read_bytes()
            digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            whole = match is not None and len(body) == 4 * self._classes * (int(match[2]) - first) > 0
            if whole and hashlib.sha256(body).digest() == digest:
                return (np.frombuffer(body, "<f4").astype(np.float32).reshape(-1, self._classes),)
        return None
