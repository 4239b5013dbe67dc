import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from squares import CLASSES, squares

from benchmarks.manifests import lineage
from models import golden, runtime
from models.manifest import Calibration, Manifest, ModelDamagedError, NetworkSpec, Preprocessing
from models.networks.registry import build
from models.recipes import RECIPES
from worker.trainer.data import TrainingData
from worker.trainer.pixels import Images
from worker.trainer.save import save_model

PREPROCESSING = Preprocessing(channels=1, height=28, width=28, resize=28, mean=(0.3,), std=(0.2,))
SPEC = NetworkSpec(name="mnist/residual", num_classes=3, in_channels=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    images = Images(pixels=squares(30, seed=0)[0], labels=squares(30, seed=0)[1])
    save_model(
        target=tmp_path / "model",
        weights=build(SPEC).state_dict(),
        network=SPEC,
        classes=CLASSES,
        lineage=lambda now: lineage("job_1", dataset_name="squares", recipe="mnist", created_at=now),
        data=TrainingData(train=images, val=images, preprocessing=PREPROCESSING),
        test_time_flip=False,
        test=None,
        training={},
        device="cpu",
        between=lambda: None,
    )
    return tmp_path / "model"


def test_pixels_are_normalised_as_the_manifest_says(model: Path):
    pixels = squares(4, seed=2)[0]
    expected = (pixels.astype(np.float64) / 255 - 0.3) / 0.2
    found = runtime.Normalise(PREPROCESSING, torch.device("cpu"))(torch.from_numpy(pixels))
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy().transpose(0, 2, 3, 1), expected, atol=1e-5)


def test_a_saved_model_reproduces_its_golden_outputs(model: Path):
    loaded = runtime.load(model, "cpu")
    assert golden.check(loaded, model) <= 1e-3
    assert loaded.manifest.parameters == sum(p.numel() for p in build(SPEC).parameters())
    assert loaded.manifest.lineage.created_at <= datetime.now(UTC)


def test_an_image_of_another_shape_is_refused(model: Path):
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 28, 28, 1\)"):
        runtime.load(model, "cpu").logits(np.zeros((1, 32, 32, 3), np.uint8))


def test_weights_that_were_changed_are_refused(model: Path):
    weights = model / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelDamagedError, match="sha256"):
        runtime.load(model, "cpu")


def test_weights_of_another_network_are_refused(model: Path):
    manifest = Manifest.read(model)
    manifest.model_copy(update={"network": SPEC.model_copy(update={"name": "cifar/resnet8"})}).write(model)
    with pytest.raises(ModelDamagedError, match="do not fit network cifar/resnet8"):
        runtime.load(model, "cpu")


def test_files_that_are_no_manifest_or_no_weights_are_refused(model: Path):
    weights = model / "weights.safetensors"
    weights.write_bytes(b"no tensors")
    digest = hashlib.sha256(b"no tensors").hexdigest()
    Manifest.read(model).model_copy(update={"weights_sha256": digest}).write(model)
    with pytest.raises(ModelDamagedError, match="do not fit"):
        runtime.load(model, "cpu")
    (model / "model.json").write_text('{"format": 1}')
    with pytest.raises(ModelDamagedError, match="no manifest"):
        runtime.load(model, "cpu")


def test_files_that_are_gone_are_damage(model: Path):
    loaded = runtime.load(model, "cpu")
    (model / "golden.safetensors").unlink()
    with pytest.raises(ModelDamagedError, match=r"golden\.safetensors is gone"):
        golden.check(loaded, model)
    for file in ("weights.safetensors", "model.json"):
        (model / file).unlink()
        with pytest.raises(ModelDamagedError, match=f"{file} is gone"):
            runtime.load(model, "cpu")


def test_outputs_that_deviate_from_the_golden_ones_are_refused(model: Path):
    loaded = runtime.load(model, "cpu")
    images = squares(4, seed=3)[0]
    digest = golden.write(model, images, loaded.logits(images) + np.float32(0.01))
    manifest = loaded.manifest.model_copy(update={"golden_sha256": digest})
    manifest.write(model)
    with pytest.raises(ModelDamagedError, match=r"deviates by 0\.01"):
        golden.check(runtime.load(model, "cpu"), model)


def test_a_logit_may_deviate_by_a_thousandth_or_by_what_float32_keeps_of_the_largest():
    assert golden.tolerance(np.array([[-100.0, 3.0]])) == pytest.approx(1e-3)
    assert golden.tolerance(np.array([[0.1, -0.2]])) == pytest.approx(1e-3)
    assert golden.tolerance(np.array([[1.0, -2e5]])) == pytest.approx(2.0)


def test_a_golden_file_of_another_model_is_refused(model: Path):
    loaded = runtime.load(model, "cpu")
    images = squares(4, seed=3)[0]
    golden.write(model, images, loaded.logits(images))
    with pytest.raises(ModelDamagedError, match=r"not the file that model\.json names"):
        golden.check(loaded, model)


def test_probabilities_are_the_softmax_of_tempered_logits(model: Path):
    manifest = Manifest.read(model).model_copy(update={"calibration": Calibration(temperature=2.0)})
    logits = np.array([[1000.0, 1002.0, 900.0]], dtype=np.float32)
    expected = np.array([1, np.e, 0]) / (1 + np.e)
    assert runtime.probabilities(logits, manifest)[0] == pytest.approx(expected, abs=1e-9)


def test_a_device_that_is_absent_is_named():
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used"):
        runtime.resolve_device("cuda:99")


def test_every_recipe_names_a_network_that_takes_its_input():
    for recipe in RECIPES.values():
        spec = NetworkSpec(name=recipe.network, num_classes=4, in_channels=recipe.channels)
        shape = (1, recipe.channels, recipe.image_size, recipe.image_size)
        with torch.inference_mode():
            assert build(spec).eval()(torch.zeros(shape)).shape == (1, 4)
