"""A model that answers with the mean over an image and its mirror image, in each way to compute it and exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from serving_toys import make_artifact
from torch import nn

from app.engine.explain import grad_cam
from app.engine.runtimes import openvino_cpu
from app.engine.runtimes.base import Numbers
from app.engine.runtimes.network import fold
from app.engine.runtimes.torch_eager import folded
from models import golden
from models.manifest import Manifest
from models.runtime import Runtime, load
from worker.exporter import onnx_model, program

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return load(make_artifact(tmp_path_factory.mktemp("flip") / "plain", job="job_1", seed=4), "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as `plain`, with a test-time flip and its golden outputs."""
    folder = make_artifact(tmp_path_factory.mktemp("flip") / "flipped", job="job_1", seed=4)
    flipped = Manifest.read(folder).model_copy(update={"test_time_flip": True})
    flipped.write(folder)
    images, _ = golden.read(folder, flipped)
    digest = golden.write(folder, images, load(folder, "cpu").logits(images))
    flipped.model_copy(update={"golden_sha256": digest}).write(folder)
    return folder


@pytest.fixture(scope="module")
def flipped(folder: Path) -> Runtime:
    return load(folder, "cpu")


def test_the_answer_is_the_mean_over_both_views_and_the_same_for_both(plain: Runtime, flipped: Runtime) -> None:
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    upright, other = plain.outputs(IMAGES), plain.outputs(mirrored)
    assert np.abs(upright.logits - other.logits).max() > 1e-2
    for outputs in (flipped.outputs(IMAGES), flipped.outputs(mirrored)):
        np.testing.assert_allclose(outputs.logits, (upright.logits + other.logits) / 2, atol=1e-4)
        np.testing.assert_allclose(outputs.embedding, (upright.embedding + other.embedding) / 2, atol=1e-4)
    np.testing.assert_allclose(flipped.logits(IMAGES), flipped.outputs(IMAGES).logits, atol=1e-4)
    np.testing.assert_allclose(flipped.logits(IMAGES[2:3])[0], flipped.logits(IMAGES)[2], atol=1e-4)
    normalised = flipped.input(IMAGES).numpy()
    np.testing.assert_allclose(flipped.outputs_of_normalised(normalised).logits, flipped.logits(IMAGES), atol=1e-4)


def test_a_version_without_the_flip_does_not_pass_for_one_with_it(plain: Runtime, folder: Path) -> None:
    assert golden.check(load(folder, "cpu"), folder) <= 1e-3
    images, expected = golden.read(folder, Manifest.read(folder))
    assert np.abs(plain.logits(images) - expected).max() > golden.tolerance(expected)


@pytest.mark.parametrize(("numbers", "near"), [(Numbers.FP32, 1e-4), (Numbers.BF16, 5e-2)])
def test_folded_networks_give_it_without_a_normalisation_left(flipped: Runtime, numbers: Numbers, near: float) -> None:
    assert not [each for each in fold(flipped.body_and_head[0]).modules() if isinstance(each, nn.BatchNorm2d)]
    expected = flipped.outputs(IMAGES)
    loaded = folded(flipped, numbers=numbers, cores=2)
    for compute in (loaded.wide, loaded.narrow):
        assert compute is not None
        ours = compute(IMAGES)
        assert np.abs(ours.logits - expected.logits).max() <= near * np.abs(expected.logits).max()
        assert np.abs(ours.embedding - expected.embedding).max() <= near * np.abs(expected.embedding).max()


def test_openvino_gives_it(flipped: Runtime, tmp_path: Path) -> None:
    expected = flipped.outputs(IMAGES)
    openvino_cpu.floating(flipped, tmp_path)
    loaded = openvino_cpu.load(tmp_path, numbers=Numbers.FP32, cores=2)
    np.testing.assert_allclose(loaded.wide(IMAGES).logits, expected.logits, atol=1e-3)
    np.testing.assert_allclose(loaded.wide(IMAGES[:1]).logits, expected.logits[:1], atol=1e-3)


@pytest.mark.parametrize("count", [1, 5])
def test_exports_give_it(folder: Path, flipped: Runtime, tmp_path: Path, count: int) -> None:
    traced = program.trace(load(folder, "cpu"))
    program.write(traced, tmp_path / "program.pt2", manifest=b"{}")
    assert program.check(tmp_path / "program.pt2", folder) <= 1e-3
    onnx_model.write(onnx_model.convert(traced), tmp_path / "model.onnx", manifest=b"{}")
    assert onnx_model.check(tmp_path / "model.onnx", folder) <= 1e-3
    run = torch.export.load(tmp_path / "program.pt2").module()
    with torch.no_grad():
        np.testing.assert_allclose(
            run(torch.from_numpy(IMAGES[:count])).numpy(), flipped.logits(IMAGES[:count]), atol=1e-3
        )


def test_its_heat_is_that_of_both_views(plain: Runtime, flipped: Runtime) -> None:
    """A sum over both views, so that an image and its mirror image have mirrored heat."""
    upright = grad_cam(flipped, IMAGES[0], class_index=1)
    mirrored = grad_cam(flipped, np.ascontiguousarray(IMAGES[0][:, ::-1]), class_index=1)
    np.testing.assert_allclose(upright.heat, mirrored.heat[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(upright.logits, flipped.logits(IMAGES[:1])[0], atol=1e-4)
    assert np.abs(upright.heat - grad_cam(plain, IMAGES[0], class_index=1).heat).max() > 1e-2
