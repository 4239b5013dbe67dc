"""The requirements of an image without CUDA."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def without_cuda() -> ModuleType:
    spec = importlib.util.spec_from_file_location("without_cuda", ROOT / "deploy" / "without_cuda.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_torch_and_torchvision_lose_their_hashes_and_cuda_alone_is_left_out(without_cuda):
    text = (ROOT / "deploy" / "requirements.txt").read_text()
    rest, builds = without_cuda.divide(text)
    assert [line.split("==")[0] for line in builds] == ["torch", "torchvision"]
    assert not any("--hash" in line for line in builds)
    assert all("--hash=sha256:" in line for line in rest)
    left_out = len(without_cuda.requirements(text)) - len(rest) - len(builds)
    assert left_out == sum(line.startswith(("nvidia-", "cuda-", "triton==")) for line in text.splitlines())


def test_names_that_merely_look_like_torch_stay(without_cuda):
    text = "torch==1 \\\n    --hash=sha256:aa\ntorchmetrics==2 \\\n    --hash=sha256:bb\n# triton\n--extra\n"
    assert without_cuda.divide(text) == (["torchmetrics==2 --hash=sha256:bb"], ["torch==1"])
