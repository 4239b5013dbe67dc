"""torch.compile ahead of time: the folded bfloat16 network as a library of its own, weights frozen and packed.

Building takes a C++ compiler and a minute or more; loading what was built takes none.
"""

import shutil
from pathlib import Path

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package
from torch._inductor import config as inductor

from app.engine.runtimes.base import Loaded, Unavailable
from app.engine.runtimes.network import Network
from app.engine.runtimes.torch_eager import called, divided
from models.runtime import Runtime

PACKAGE = "compiled.pt2"


def build(reference: Runtime, folder: Path) -> Path:
    """Raises Unavailable where there is no C++ compiler."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise Unavailable("there is no C++ compiler")
    to, device = reference.manifest.preprocessing, reference.device
    network = Network(reference, folded=True, dtype=torch.bfloat16).eval().to(memory_format=torch.channels_last)
    example = torch.zeros((2, to.height, to.width, to.channels), dtype=torch.uint8, device=device)
    # Threads are taken as the calling thread has them: the same library serves all cores and one.
    with torch.no_grad(), inductor.patch({"freezing": True, "cpp.dynamic_threads": True}):
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
        aoti_compile_and_package(program, package_path=str(folder / PACKAGE))
    return folder / PACKAGE


def load(folder: Path, *, device: torch.device, cores: int) -> Loaded:
    return divided(called(aoti_load_package(str(folder / PACKAGE)), device), cores=cores if device.type == "cpu" else 1)
