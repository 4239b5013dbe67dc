"""What the exporter writes is the model, for whoever has PyTorch and nothing of this project."""

import ast
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from job_processes import finish, of
from safetensors.numpy import load_file
from samples import photo

from models import bundle, runtime
from models.catalog import STARTERS, Catalog
from models.images import decode, prepare
from models.manifest import Manifest, Preprocessing
from models.networks.registry import NETWORKS
from models.networks.registry import build as registry_build
from store.layout import Layout
from worker.exporter import onnx_model, program
from worker.exporter.exporting import export
from worker.exporter.proof import proven
from worker.job_arguments import JobArguments
from worker.job_process import DONE, REFUSED, JobRefused, Stop

EXPORTER = "worker.exporter"


def artifacts(run_dir: Path, claim: int = 1) -> Path:
    return run_dir / f"claim-{claim}" / "artifacts"


@pytest.mark.parametrize("name", ["cifar10-resnet20", "mnist-residual"])
def test_a_bundle_has_the_same_bytes_each_time_and_its_readmes_code_gives_the_same_answers(
    layout, new_job, tmp_path, name
):
    run_dir = new_job("export", model=f"{name}@1", format="bundle")
    code, said = finish(EXPORTER, run_dir)
    assert code == DONE
    assert of(said, "result")[0]["metrics"]["golden_deviation"] <= 1e-3
    assert of(said, "progress")[-1]["fraction"] == 1.0
    export(JobArguments(run_dir=run_dir, claim=2, data_dir=layout.root, device="cpu"), Stop())
    first, second = (artifacts(run_dir, claim) / "bundle.zip" for claim in (1, 2))
    assert first.read_bytes() == second.read_bytes()

    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    folder, version = tmp_path / f"{name}-1", Catalog(layout.models).folder(name, 1)
    files = ["README.md", "golden.safetensors", "model.json", "network.py", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == files
    for file in ("model.json", "weights.safetensors", "golden.safetensors"):
        assert (folder / file).read_bytes() == (version / file).read_bytes()

    (code_in_readme,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert '# print(classify("photo.png")[:3])' in code_in_readme
    asked = "import sys; print(json.dumps(dict(classify('photo.png')))); print('models' in sys.modules)"
    (folder / "use.py").write_text(code_in_readme + asked)
    picture = photo(size=(90, 61))
    picture.save(folder / "photo.png")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-W", "error", "use.py"]
    ended = subprocess.run(
        command, cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    golden, labels, uses_this_project = ended.stdout.splitlines()
    assert float(golden.split()[-1]) <= 1e-3
    assert uses_this_project == "False"

    served = runtime.load(version, "cpu")
    pixels, _ = prepare(decode((folder / "photo.png").read_bytes(), max_pixels=10_000), served.manifest.preprocessing)
    expected = runtime.probabilities(served.logits(pixels[None]), served.manifest)[0]
    found = json.loads(labels)
    assert list(found) == [served.manifest.classes[i] for i in np.argsort(-expected)]
    assert [found[label] for label in served.manifest.classes] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("factory", sorted({entry.factory for entry in NETWORKS.values()}))
def test_the_code_of_every_network_stands_alone(factory):
    """A bundle holds one module: it may import PyTorch and the standard library, and nothing of ours."""
    source = find_spec(factory.partition(":")[0])
    assert source is not None
    roots = set()
    for node in ast.walk(ast.parse(Path(str(source.origin)).read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(str(node.module).partition(".")[0])
    assert roots - set(sys.stdlib_module_names) <= {"torch", "torchvision"}


def manifest_of(network: str) -> Manifest:
    """The manifest of a model of this network, as far as a bundle tells it."""
    starter = Manifest.read(STARTERS / "cifar10-resnet20")
    spec = starter.network.model_copy(update={"name": network, "in_channels": NETWORKS[network].input[0]})
    return starter.model_copy(update={"network": spec})


@pytest.mark.parametrize("network", NETWORKS)
def test_the_readme_of_every_network_builds_it(tmp_path, network):
    manifest = manifest_of(network)
    manifest.write(tmp_path)
    content = dict(bundle.members(tmp_path, "m", 1))
    readme, source = content["README.md"], content["network.py"]
    assert isinstance(readme, bytes)
    assert isinstance(source, bytes)
    (build,) = re.findall(r"^net = (.*)$", readme.decode(), re.MULTILINE)
    (function,) = re.findall(r"^from network import (\w+)$", readme.decode(), re.MULTILINE)
    assert ("torchvision" in readme.decode().split("```")[0]) == network.startswith("torchvision/")
    module: dict[str, Any] = {"__name__": "network"}
    with torch.device("meta"):
        exec(compile(source, "network.py", "exec"), module)
        ours = registry_build(manifest.network).state_dict()
        theirs = eval(build, {function: module[function]}).state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in ours.items()}


def test_a_program_runs_any_number_of_images_to_the_golden_logits_and_has_the_same_bytes_each_time(layout, new_job):
    run_dir = new_job("export", model="cifar10-resnet20@1", format="torch_export")
    code, said = finish(EXPORTER, run_dir)
    assert code == DONE
    export(JobArguments(run_dir=run_dir, claim=2, data_dir=layout.root, device="cpu"), Stop())
    assert of(said, "result")[0]["metrics"]["golden_deviation"] <= 1e-3
    digests = {hashlib.sha256((artifacts(run_dir, n) / "program.pt2").read_bytes()).hexdigest() for n in (1, 2)}
    assert len(digests) == 1
    version = Catalog(layout.models).folder("cifar10-resnet20", 1)
    assert (artifacts(run_dir) / "model.json").read_bytes() == (version / "model.json").read_bytes()
    inside = {"model.json": ""}
    loaded = torch.export.load(artifacts(run_dir) / "program.pt2", extra_files=inside).module()
    assert inside["model.json"] == (version / "model.json").read_text()
    golden = load_file(version / "golden.safetensors")
    images = np.concatenate([golden["images"]] * 5)
    for count in (1, 7, len(images)):
        logits = loaded(torch.from_numpy(images[:count])).detach().numpy()
        assert np.abs(logits - np.concatenate([golden["logits"]] * 5)[:count]).max() <= 1e-3


def test_a_program_on_a_full_disk_is_an_error_of_the_disk_and_no_crash():
    """The job fails with disk_full; torch's own writer of files would abort the process."""
    traced = program.trace(runtime.load(STARTERS / "mnist-residual", "cpu"))
    with pytest.raises(OSError, match="No space left") as full:
        program.write(traced, Path("/dev/full"), manifest=b"{}")
    assert full.value.errno == errno.ENOSPC


def test_a_program_takes_more_images_at_once_than_any_bound_that_it_could_have(tmp_path):
    """It once took 4,096 at most."""
    folder = STARTERS / "mnist-residual"
    program.write(program.trace(runtime.load(folder, "cpu")), tmp_path / "program.pt2", manifest=b"{}")
    images = torch.zeros(4_200, 28, 28, 1, dtype=torch.uint8)
    assert torch.export.load(tmp_path / "program.pt2").module()(images).shape == (4_200, 10)


@pytest.mark.parametrize("network", ["cifar/resnet8", "d2l/resnet18", "mnist/residual", "torchvision/resnet18"])
@pytest.mark.parametrize("test_time_flip", [False, True])
def test_the_number_of_images_is_left_open_for_every_kind_of_network(network, test_time_flip):
    """With small images, for speed: the number is the same matter for large ones."""
    entry = NETWORKS[network]
    size, channels = min(entry.input[1], 32), entry.input[0]
    shape = {"height": size, "width": size, "resize": size, "channels": channels}
    pre = Preprocessing(**shape, mean=(0.5,) * channels, std=(0.5,) * channels)
    manifest = manifest_of(network).model_copy(update={"preprocessing": pre, "test_time_flip": test_time_flip})
    model = runtime.Runtime(
        manifest=manifest,
        network=registry_build(manifest.network).eval(),
        normalise=runtime.Normalise(pre, torch.device("cpu")),
        device=torch.device("cpu"),
    )
    traced = program.trace(model)
    (bounds,) = traced.range_constraints.values()
    assert bounds.lower == 1
    assert bounds.upper > 2**40
    with torch.no_grad():
        for count in (1, 3):
            images = torch.zeros(count, size, size, channels, dtype=torch.uint8)
            assert traced.module()(images).shape == (count, manifest.network.num_classes)


def test_an_onnx_model_has_the_same_bytes_each_time_and_runs_any_number_of_images_to_the_golden_logits(layout, new_job):
    run_dir = new_job("export", model="mnist-residual@1", format="onnx")
    code, said = finish(EXPORTER, run_dir)
    assert code == DONE
    assert of(said, "result")[0]["metrics"]["golden_deviation"] <= 1e-3
    assert of(said, "progress")[-1]["fraction"] == 1.0
    export(JobArguments(run_dir=run_dir, claim=2, data_dir=layout.root, device="cpu"), Stop())
    first, second = (artifacts(run_dir, claim) / "model.onnx" for claim in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in first.read_bytes()

    version = Catalog(layout.models).folder("mnist-residual", 1)
    session = onnxruntime.InferenceSession(first, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 28, 28, 1])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["N", 10])
    inside = session.get_modelmeta().custom_metadata_map["model.json"]
    assert inside == (version / "model.json").read_text() == (artifacts(run_dir) / "model.json").read_text()
    golden = load_file(version / "golden.safetensors")
    for count in (1, 7, 60):
        (found,) = session.run(["logits"], {"images": np.concatenate([golden["images"]] * 5)[:count]})
        assert np.abs(found - np.concatenate([golden["logits"]] * 5)[:count]).max() <= 1e-3


def test_an_onnx_model_that_computes_something_else_is_refused(layout, tmp_path):
    version = Catalog(layout.models).folder("mnist-residual", 1)
    other = runtime.load(version, "cpu")
    with torch.no_grad():
        other.network.get_parameter(next(iter(dict(other.network.named_parameters())))).add_(0.1)
    onnx_model.write(onnx_model.convert(program.trace(other)), tmp_path / "model.onnx", manifest=b"{}")
    with pytest.raises(JobRefused, match="deviate") as refused:
        onnx_model.check(tmp_path / "model.onnx", version)
    assert refused.value.code == "export_deviates"


def test_one_logit_that_is_no_number_refuses_a_conversion_wherever_it_is():
    expected = np.ones((2, 3), np.float32)
    assert proven((expected, expected[:1]), expected, "It") == 0
    for together, alone in ((expected, expected[:1] * np.nan), (expected * np.nan, expected[:1])):
        with pytest.raises(JobRefused, match="deviate by nan"):
            proven((together, alone), expected, "It")


def refusal(layout: Layout, run_dir: Path) -> str:
    """Run the export in this process; the code that it is refused with."""
    arguments = JobArguments(run_dir=run_dir, claim=1, data_dir=layout.root, device="cpu")
    with pytest.raises(JobRefused) as refused:
        export(arguments, Stop())
    assert [path for path in run_dir.rglob("*") if path.is_file()] == [run_dir / "spec.json"]
    return refused.value.code


def change_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damaged", ["model.json", "weights.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("harm", [change_last_byte, Path.unlink])
def test_a_damaged_model_is_refused_and_leaves_nothing(tmp_path, damaged, harm):
    layout = Layout(tmp_path / "data").create()
    Catalog(layout.models).seed()
    harm(layout.models / "mnist-residual" / "1" / damaged)
    run_dir = layout.job("job_damaged")
    run_dir.mkdir()
    spec = {"kind": "export", "model": "mnist-residual@1", "format": "bundle"}
    (run_dir / "spec.json").write_text(json.dumps(spec))
    assert refusal(layout, run_dir) == "model_damaged"


def test_an_unknown_format_or_model_is_refused(layout, new_job):
    for spec, expected in (({"format": "pickle"}, "bad_spec"), ({"model": "none@1"}, "model_not_found")):
        run_dir = new_job("export", **{"model": "mnist-residual@1", "format": "bundle", **spec})
        assert refusal(layout, run_dir) == expected
    code, said = finish(EXPORTER, run_dir)
    assert (code, of(said, "error")[0]["code"]) == (REFUSED, expected)
