"""NVIDIA: the folded bfloat16 network with its kernels recorded once for each of a few batch sizes.

A batch is copied into the smallest recording that holds it. Starting a recording is one call, so that small batches are
not bound by the CPU that launches kernels.
"""

import bisect

import numpy as np
import numpy.typing as npt
import torch

from app.engine.runtimes.base import Loaded, Unavailable
from app.engine.runtimes.network import Network
from models.runtime import Outputs, Runtime

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WARM_UPS = 3  # before a recording: libraries allocate and choose kernels at their first calls


def load(reference: Runtime) -> Loaded:
    """Raises Unavailable where there is no CUDA device."""
    if reference.device.type != "cuda":
        raise Unavailable("there is no CUDA device")
    network = Network(reference, folded=True, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    return Loaded(wide=_Recordings(network, reference))


class _Recordings:
    """One recording a batch size; they share their memory, because only one runs at a time."""

    def __init__(self, network: torch.nn.Module, reference: Runtime) -> None:
        to = reference.manifest.preprocessing
        self._device = reference.device
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        pool = None
        with torch.inference_mode(), torch.cuda.device(self._device):
            for size in reversed(SIZES):  # the largest first: the others fit into its memory
                images = torch.zeros((size, to.height, to.width, to.channels), dtype=torch.uint8, device=self._device)
                side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it so
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UPS):
                        network(images)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                # The reference serves meanwhile: by default its thread's calls would fail, and the recording with them.
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    outputs = network(images)
                pool = graph.pool()
                self._recorded[size] = graph, images, outputs

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        parts = [self._one(images[start : start + SIZES[-1]]) for start in range(0, len(images), SIZES[-1])]
        return Outputs(
            logits=np.concatenate([each.logits for each in parts]),
            embedding=np.concatenate([each.embedding for each in parts]),
        )

    def _one(self, images: npt.NDArray[np.uint8]) -> Outputs:
        count = len(images)
        graph, place, (logits, embedding) = self._recorded[SIZES[bisect.bisect_left(SIZES, count)]]
        with torch.cuda.device(self._device):
            place[:count].copy_(torch.from_numpy(np.ascontiguousarray(images)))
            graph.replay()
            return Outputs(logits=logits[:count].cpu().numpy(), embedding=embedding[:count].cpu().numpy())
