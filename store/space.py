"""How much of the disk uploads may take: a part of it is kept for what runs, checkpoints and the ledger above all."""

import math
import os
from pathlib import Path

RESERVE_BYTES = 1 << 30
RESERVE_PART = 50  # of a disk of less than 50 GiB its 50th part


def spare(place: Path | int) -> float:
    """Bytes that uploads may still take of the disk of a path or an open file, less than nothing where the reserve is
    in use; infinite where the file system does not say.
    """
    found = os.statvfs(place)
    if found.f_blocks == 0:
        return math.inf
    reserve = min(RESERVE_BYTES, found.f_blocks * found.f_frsize // RESERVE_PART)
    return found.f_bavail * found.f_frsize - reserve
