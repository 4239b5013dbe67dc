"""What is read of a version's weights without torch, against the networks themselves."""

import json
from pathlib import Path

import pytest
import torch

from models.manifest import WEIGHTS, NetworkSpec
from models.networks.registry import NETWORKS, build
from models.runtime import split
from models.weights import embedding_width


def write_header(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file with tensors of these shapes, which take no room on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + end)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("classes", [3, 200])  # as many as mnist's first linear layer gives
def test_the_embedding_is_as_wide_as_what_the_last_layer_takes(tmp_path: Path, network: str, classes: int) -> None:
    spec = NetworkSpec(name=network, num_classes=classes, in_channels=1)
    with torch.device("meta"):  # shapes alone: no memory, no time
        made = build(spec)
    state = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    write_header(tmp_path, state)
    assert embedding_width(tmp_path) == split(made)[1].in_features


@pytest.mark.parametrize("weights", [None, b"weights", b"", b"\xff" * 64])
def test_weights_that_cannot_be_read_have_no_width(tmp_path: Path, weights: bytes | None) -> None:
    if weights is not None:
        (tmp_path / WEIGHTS).write_bytes(weights)
    assert embedding_width(tmp_path) is None
