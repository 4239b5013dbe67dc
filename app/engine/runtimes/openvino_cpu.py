"""OpenVINO's CPU plugin: weights packed once, in float32, bfloat16 or int8.

The network is converted once a machine; the file of the conversion is all that is needed at the next start.
`ENABLE_CPU_PINNING` is off: several engines would pin their threads to the same cores.
"""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app.engine.runtimes.base import Compute, Loaded, Numbers, Unavailable
from app.engine.runtimes.network import Network
from app.engine.runtimes.openvino_library import nncf_library, openvino_library
from models.runtime import Outputs, Runtime

FLOAT = "openvino.xml"
QUANTIZED = "openvino-int8.xml"

#: Up to so many cores each has a compiled model of its own, and computes in the thread that asks. Handing batches to
#: the threads of one model for all leaves every core idle for a tenth of the time; but each copy holds its weights.
_COPIES = 16

_converted: set[tuple[Path, str]] = set()


def floating(reference: Runtime, folder: Path) -> Path:
    """The network as OpenVINO's IR, weights float32; converted unless this process has done so already."""
    ov, file = openvino_library(), folder / FLOAT
    if (folder, reference.manifest.weights_sha256) in _converted:
        return file
    to = reference.manifest.preprocessing
    network = Network(reference, folded=False).eval()
    example = torch.zeros((2, to.height, to.width, to.channels), dtype=torch.uint8)
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
        model = ov.convert_model(program)
    model.reshape([-1, to.height, to.width, to.channels])
    _save(model, file)
    _converted.add((folder, reference.manifest.weights_sha256))
    return file


def quantize(floating: Path, images: npt.NDArray[np.uint8]) -> Path:
    """The converted network in int8, beside it; activations' ranges are those found on `images` uint8 (N, H, W, C)."""
    ov, library = openvino_library(), nncf_library()
    model = ov.Core().read_model(floating)
    calibration = library.Dataset([image[None] for image in images])
    quantized = library.quantize(
        model, calibration, preset=library.QuantizationPreset.MIXED, subset_size=len(images), fast_bias_correction=True
    )
    file = floating.with_name(QUANTIZED)
    _save(quantized, file)
    return file


def _save(model: Any, file: Path) -> None:  # noqa: ANN401 - OpenVINO's own
    """In place of what is there, which engines have mapped into memory: written over, it would kill them."""
    place = file.parent / ".making"  # whoever converts holds a lock; one that was killed may have left it
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        made = place / file.name
        openvino_library().save_model(model, made, compress_to_fp16=False)
        for each in (made.with_suffix(".bin"), made):
            each.replace(file.with_name(each.name))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def load(folder: Path, *, numbers: Numbers, cores: int) -> Loaded:
    """Raises Unavailable where this CPU has no bfloat16 of its own.

    One image is computed before anybody has it. At a process's first inference the library's binding makes something
    of its own: two threads that came first together would wait for each other for ever, one for that, the other for
    the interpreter.
    """
    core = openvino_library().Core()
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if numbers is Numbers.BF16 and not able:
        raise Unavailable("this CPU computes no bfloat16")
    model = core.read_model(folder / (QUANTIZED if numbers is Numbers.INT8 else FLOAT))
    shape = [side.get_length() for side in list(model.inputs[0].get_partial_shape())[1:]]
    hint = "f32" if numbers is Numbers.FP32 or not able else "bf16"

    def compiled(shape: list[int], *, cores: int, streams: int = 1) -> "_Requests":
        shaped = model.clone()
        shaped.reshape(shape)
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": cores,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        return _Requests(core.compile_model(shaped, "CPU", settings))

    first = np.zeros((1, *shape), np.uint8)
    if cores == 1:
        wide = compiled([-1, *shape], cores=1)
        wide(first)
        return Loaded(wide=wide)
    copies = cores if cores <= _COPIES else 1
    narrow: Compute
    if copies > 1:
        narrow = _InTurn([compiled([-1, *shape], cores=1) for _ in range(copies)])
    else:
        narrow = compiled([-1, *shape], cores=cores, streams=cores)
    lone = compiled([1, *shape], cores=cores)  # a fixed shape is faster, and who comes alone comes as one image
    lone(first)
    return Loaded(
        wide=lambda images: (lone if len(images) == 1 else narrow)(images), narrow=narrow, streams=cores, copies=copies
    )


class _Requests:
    """A compiled model; each thread that calls it gets an inference request of its own."""

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 - openvino ships no types
        self._compiled = compiled
        self._own = threading.local()

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        logits, embedding = request.infer([np.ascontiguousarray(images)], share_inputs=True).to_tuple()
        return Outputs(logits=logits, embedding=embedding)


class _InTurn:
    """Compiled models of one core each, for as many threads at once: each call takes the one that rested longest."""

    def __init__(self, models: Sequence[_Requests]) -> None:
        self._resting: SimpleQueue[_Requests] = SimpleQueue()
        for each in models:
            self._resting.put(each)

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        taken = self._resting.get()
        try:
            return taken(images)
        finally:
            self._resting.put(taken)
