"""The model's float32 network, beside whatever serves: for gradients, and for inputs that a client has normalised."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from models.runtime import Outputs, Runtime

T = TypeVar("T")


class Reference:
    """Loaded when it is first needed, which most engines never do."""

    def __init__(self, load: Callable[[], Runtime]) -> None:
        self._load = load
        self._loading = Lock()
        self._runtime: Runtime | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reference")

    def get(self) -> Runtime:
        """The network. Slow the first time: not for the event loop. Raises what loading raises."""
        with self._loading:
            if self._runtime is None:
                self._runtime = self._load()
            return self._runtime

    def outputs_of_normalised(self, batch: npt.NDArray[np.float32]) -> Outputs:
        """Logits and embedding of float32 (N, C, H, W), on the calling thread."""
        return self.get().outputs_of_normalised(batch)

    async def run(self, work: Callable[[Runtime], T]) -> T:
        """`work(network)` in this network's own thread, one after the other; what is cancelled before, never runs."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self.get()))
