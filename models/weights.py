"""What the header of weights.safetensors tells, without its tensors and without torch."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from models.manifest import WEIGHTS


def embedding_width(folder: Path) -> int | None:
    """How many numbers the last linear layer takes, which is the embedding's width; None for what cannot be read.

    In every network of the registry that layer's weight (K, D) is, by name, the last tensor of two dimensions.
    """
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in sorted(file.keys())]
    except (OSError, SafetensorError):
        return None
    return next((int(shape[1]) for shape in reversed(shapes) if len(shape) == 2), None)
