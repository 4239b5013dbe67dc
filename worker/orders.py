"""What a running job is asked to do without stopping: a file in its claim's folder, `claim-<n>/orders.json`.

The supervisor writes it, whole, before the process starts and whenever the orders change. A process that runs by hand
is ordered about by writing the same file.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

NAME = "orders.json"
LOOK_SECONDS = 0.2


class Orders(BaseModel):
    """The content of orders.json: `jobs.model.Orders`, for processes that do not know the ledger."""

    model_config = ConfigDict(frozen=True)

    version: int = 0
    #: Changed values of recipe fields; those that were changed only.
    settings: dict[str, Any] = {}
    #: Stop at the next safe point and keep the epoch that the recipe's `keep` names.
    finish: bool = False
    #: How many checkpoints have been asked for, all in all.
    checkpoint: int = 0


class OrdersFile:
    """The file as the job's process sees it; it need not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._looked = 0.0

    def look(self) -> Orders | None:
        """The orders, when they changed since the last look. Costs a comparison, and a stat five times a second.

        What cannot be read is no order; standard error tells of it once.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        try:
            found = os.stat(self._path)  # noqa: PTH116 - five times a second between steps: the cheapest form
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if mark == self._seen:
                return None
            self._seen = mark
            return Orders.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            print(f"{self._path} cannot be followed: {error}", file=sys.stderr)  # noqa: T201 - for people
            return None
