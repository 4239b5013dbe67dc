"""From a candidate's name to a function that computes: what it needs is built once a machine, and then loaded."""

from collections.abc import Callable
from pathlib import Path

from app.engine.runtimes.base import Candidate, Loaded, Numbers, Unavailable
from models.probes import Probes
from models.runtime import Runtime, resolve_device
from store.settings import RuntimeName


def build(candidate: Candidate, reference: Runtime, folder: Path, *, probes: Probes | None) -> tuple[str, ...]:
    """Write into `folder` what loading the candidate needs; the files' names. Raises Unavailable."""
    if candidate.runtime is RuntimeName.OPENVINO:
        from app.engine.runtimes import openvino_cpu  # noqa: PLC0415 - each library is loaded only where it is used

        if candidate.numbers is Numbers.INT8:
            if probes is None:
                raise Unavailable("the model came without calibration images")
            file = openvino_cpu.quantize(openvino_cpu.floating(reference, folder), probes.calibration)
        else:
            file = openvino_cpu.floating(reference, folder)
        return file.name, file.with_suffix(".bin").name
    if candidate.runtime is RuntimeName.COMPILED:
        from app.engine.runtimes import compiled  # noqa: PLC0415 - likewise

        return (compiled.build(reference, folder).name,)
    return ()


def load(candidate: Candidate, reference: Callable[[], Runtime], folder: Path, *, device: str, cores: int) -> Loaded:
    """The candidate, ready. `reference` is called only where its weights are needed. Raises Unavailable."""
    if candidate.runtime is RuntimeName.OPENVINO:
        from app.engine.runtimes import openvino_cpu  # noqa: PLC0415 - likewise

        return openvino_cpu.load(folder, numbers=candidate.numbers, cores=cores)
    if candidate.runtime is RuntimeName.COMPILED:
        from app.engine.runtimes import compiled  # noqa: PLC0415 - likewise

        return compiled.load(folder, device=resolve_device(device), cores=cores)
    if candidate.runtime is RuntimeName.CUDA_GRAPHS:
        from app.engine.runtimes import cuda_graphs  # noqa: PLC0415 - likewise

        return cuda_graphs.load(reference())
    from app.engine.runtimes import torch_eager  # noqa: PLC0415 - likewise

    if candidate.runtime is RuntimeName.FOLDED:
        return torch_eager.folded(reference(), numbers=candidate.numbers, cores=cores)
    return torch_eager.eager(reference(), cores=cores)
