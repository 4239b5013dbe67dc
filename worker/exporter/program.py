"""A model version as a `torch.export` program: from prepared pixels to logits, for any number of images."""

from io import BytesIO
from pathlib import Path

import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from models.manifest import GOLDEN
from models.runtime import Runtime
from worker.exporter.proof import proven


class Program(nn.Module):
    """uint8 (N, H, W, C) → logits float32 (N, K): normalisation and network as `models/runtime` runs them."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Runtime) -> None:
        super().__init__()
        self.register_buffer("scale", model.normalise.scale)
        self.register_buffer("shift", model.normalise.shift)
        # torch.export stores only weights that lie as plain contiguous memory without a word of warning
        self.network = model.whole.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        scaled = torch.addcmul(self.shift, images.to(torch.float32), self.scale)
        logits: Tensor = self.network(scaled.permute(0, 3, 1, 2))
        return logits


def trace(model: Runtime) -> torch.export.ExportedProgram:
    """The program of `model`, which lies on the CPU, for any number of images."""
    want = model.manifest.preprocessing
    example = torch.zeros(2, want.height, want.width, want.channels, dtype=torch.uint8)
    batch = torch.export.Dim("images", min=1)
    with torch.no_grad():
        return torch.export.export(Program(model).eval(), (example,), dynamic_shapes=({0: batch},))


def write(program: torch.export.ExportedProgram, target: Path, *, manifest: bytes) -> None:
    """Save the program with model.json inside it. Raises OSError: on a full disk torch's own writing of a file would
    abort the process.
    """
    content = BytesIO()
    torch.export.save(program, content, extra_files={"model.json": manifest.decode()})
    target.write_bytes(content.getbuffer())


def check(target: Path, folder: Path) -> float:
    """Load what was written and compute the golden images, together and one alone: the largest deviation of a logit.

    Raises JobRefused above the tolerance of `models/golden.py`.
    """
    golden = load_file(folder / GOLDEN)
    images = torch.from_numpy(golden["images"])
    run = torch.export.load(target).module()
    with torch.no_grad():
        together, alone = run(images).numpy(), run(images[:1]).numpy()
    return proven((together, alone), golden["logits"], "The program")
