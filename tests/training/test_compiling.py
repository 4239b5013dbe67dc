"""A compiler that fails costs a warning and its speed, and changes no number."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from job_processes import of
from squares import squares, write_dataset
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor import config as inductor

from store.layout import Layout
from worker.trainer import compiling
from worker.trainer.compiling import Compiled

Warnings = list[dict[str, str]]


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> Warnings:
    said: Warnings = []
    monkeypatch.setattr(compiling, "emit", lambda _, data: said.append(data))
    return said


def broken(*_: Any) -> Callable[..., Any]:
    raise ValueError("no such instruction\nand much more")


def plain(graph: Any, _: Any) -> Any:
    return graph


BACKENDS = {
    "forward": broken,
    "backward": aot_autograd(fw_compiler=plain, bw_compiler=broken),
}


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def learned(network: nn.Module, forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Gradients and statistics after two batches."""
    for seed in range(2):
        inputs = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        forward(inputs).square().sum().backward()
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    return [*gradients, *network.buffers()]


@pytest.mark.parametrize("where", BACKENDS)
def test_what_cannot_be_compiled_is_computed_without_and_moves_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, warnings: Warnings, where: str
):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=BACKENDS[where]))
    network = small()
    expected = copy.deepcopy(network)
    got = learned(network, Compiled(network))
    assert all(map(torch.equal, got, learned(expected, expected)))
    assert [each["code"] for each in warnings] == ["not_compiled"]
    assert "(ValueError: no such instruction)" in warnings[0]["message"]


def test_a_compiler_that_is_none_is_told_of(warnings: Warnings):
    """As torch itself finds it out: /bin/false compiles nothing."""
    network = small()
    with inductor.patch({"cpp.cxx": (None, "false"), "force_disable_caches": True}):
        assert Compiled(network)(torch.rand(5, 1, 8, 8)).shape == (5, 3)
    assert [each["code"] for each in warnings] == ["not_compiled"]


def test_a_training_whose_compiler_fails_is_the_one_without_a_compiler(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, {"train": squares(96, seed=0), "test": squares(30, seed=1)})
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    monkeypatch.setattr("shutil.which", str)
    losses = {}
    for asked in (False, True):
        said = here(new_job(f"asked-{asked}", epochs=1, compile=asked))
        losses[asked] = [epoch["train"]["loss"] for epoch in of(said, "epoch")]
        assert [warning["code"] for warning in of(said, "warning")] == ["not_compiled"] * asked
    assert losses[True] == losses[False]
