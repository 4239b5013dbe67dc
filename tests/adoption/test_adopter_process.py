"""`python -m worker.adopter` and the disposable process below it, on real files."""

import ctypes
import hashlib
import json
import math
import os
import platform
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_networks import PlainResNet, trained
from safetensors.numpy import save
from safetensors.torch import save_file

from models import bundle, golden, runtime
from models.catalog import STARTERS
from models.manifest import Manifest, NetworkSpec, Origin
from models.networks.registry import build
from worker.adopter.adopting import adopt
from worker.adopter.bundles import adopt_bundle
from worker.adopter.reading import format_of, read
from worker.adopter.task import AdoptSpec, Task
from worker.adopter.unpickling import NoStateDict, state_of
from worker.adopter.weights import adopt_tensors, compare
from worker.job_arguments import JobArguments
from worker.job_process import DONE, REFUSED, JobRefused, JobStopped, Stop


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def resnet20() -> dict[str, Any]:
    network = trained(PlainResNet((3, 3, 3), 16, bottleneck=False, word="", head="linear", classes=10))
    return dict(network.state_dict())


def task(upload: Path, tmp_path: Path, **asked: object) -> Task:
    spec = AdoptSpec.model_validate({"kind": "adopt", "upload": "job_x", "register_as": "mine", **asked})
    draft = tmp_path / "draft"
    draft.mkdir()
    origin = Origin(filename="f", sha256="0", format=format_of(upload))
    return Task(
        spec=spec, job="job_x", upload=upload, origin=origin, draft=draft, stop=Stop(), begin=lambda _phase: None
    )


def test_a_pickled_state_dict_of_a_plain_cifar_resnet_becomes_a_model_that_proves_itself(tmp_path: Path) -> None:
    run_dir = tmp_path / "jobs" / "job_x"
    run_dir.mkdir(parents=True)
    nested = {"net": {f"module.{key}": tensor for key, tensor in resnet20().items()}, "acc": 91.2, "epoch": 7}
    torch.save(nested, run_dir / "upload")
    classes = [f"c{index}" for index in range(10)]
    spec = {"kind": "adopt", "upload": "job_x", "filename": "ckpt.pth", "register_as": "mine", "classes": classes}
    (run_dir / "spec.json").write_text(json.dumps(spec))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "worker.adopter", str(run_dir)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=200)
    assert ended.returncode == DONE, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (result["type"], result["data"]["artifact"]) == ("result", "claim-1/model")
    assert result["data"]["metrics"]["plain_layout_difference"] <= 1e-4
    folder = run_dir / "claim-1" / "model"
    manifest = Manifest.read(folder)
    assert (manifest.network.name, manifest.parameters, manifest.classes) == ("cifar/resnet20", 269_722, (*classes,))
    assert manifest.lineage.origin is not None
    assert (manifest.lineage.job, manifest.lineage.origin.filename) == ("job_x", "ckpt.pth")
    assert golden.check(runtime.load(folder, "cpu"), folder) <= 1e-4
    assert [each.name for each in (run_dir / "claim-1").iterdir()] == ["model"]


def test_a_pickle_that_would_run_a_command_runs_nothing_and_is_refused(tmp_path: Path) -> None:
    canary, upload = tmp_path / "canary", tmp_path / "upload"
    torch.save({"conv1.weight": Evil(f"touch {canary}")}, upload)
    with pytest.raises(JobRefused, match="it holds more than tensors"):
        read(upload, "torch", scratch=tmp_path / "scratch", stop=Stop())
    assert not canary.exists()
    assert not (tmp_path / "scratch").exists()


def landlock_version() -> int:
    """What this kernel says of itself to LANDLOCK_CREATE_RULESET_VERSION; below 1 it bans nothing."""
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def test_the_disposable_process_may_neither_write_nor_start_nor_reach_anything(tmp_path: Path) -> None:
    code = f"""
import resource, socket, subprocess
from worker.adopter import sandbox
listener = socket.create_server(("127.0.0.1", 0))
banned = sandbox.enter(memory_bytes=2**30, written_bytes=4096)
done = []
for what, attempt in (
    ("wrote", lambda: open({str(tmp_path / "written")!r}, "w").close()),
    ("started", lambda: subprocess.run(["/bin/true"])),
    ("connected", lambda: socket.create_connection(listener.getsockname())),
):
    try:
        attempt()
        done.append(what)
    except PermissionError:
        pass
print(banned, resource.getrlimit(resource.RLIMIT_DATA)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0], *done)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    banned, *rest = ended.stdout.split()
    possible = ["wrote", "started"] if landlock_version() < 1 else []
    if platform.machine() not in {"x86_64", "aarch64"}:  # there is no filter of system calls for another
        possible.append("connected")
    assert (banned, rest) == (str(not possible), [str(2**30), "4096", *possible])


def test_a_state_dict_is_found_below_the_usual_names() -> None:
    tensors = {"a": torch.zeros(1)}
    for wrapped in (
        tensors,
        {"state_dict": tensors, "epoch": 3},
        {"model": {"module": tensors}, "best": torch.ones(1)},
        {"anything": tensors},
    ):
        assert state_of(wrapped) == tensors
    nothings: tuple[object, ...] = ([1, 2], {"epoch": 3}, {"a": {}, "b": {}})
    for nothing in nothings:
        with pytest.raises(NoStateDict):
            state_of(nothing)


def test_a_model_of_safetensors_says_what_was_guessed(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    upload = tmp_path / "upload"
    save_file(resnet20(), upload)
    metrics = adopt_tensors(task(upload, tmp_path))
    assert metrics["network"] == "cifar/resnet20"
    assert b"classes_guessed" in capfdbinary.readouterr().out
    assert Manifest.read(tmp_path / "draft").classes[3] == "class 3"


def test_a_grey_network_of_a_layout_of_its_own_gives_the_logits_of_its_origin(tmp_path: Path) -> None:
    origin = trained(build(NetworkSpec(name="cifar/resnet9", num_classes=3, in_channels=1)))
    save_file(origin.state_dict(), tmp_path / "upload")
    metrics = adopt_tensors(task(tmp_path / "upload", tmp_path))
    assert (metrics["network"], metrics["plain_layout_difference"]) == ("cifar/resnet9", None)
    adopted = runtime.load(tmp_path / "draft", "cpu")
    images, logits = golden.read(tmp_path / "draft", adopted.manifest)
    assert images.shape == (6, 32, 32, 1)
    with torch.inference_mode():
        expected = origin(adopted.normalise(torch.from_numpy(images))).numpy()
    assert np.abs(logits - expected).max() <= 1e-4


@pytest.mark.parametrize(("largest", "passes", "fails"), [(1.0, 5e-5, 2e-4), (50.0, 2e-4, 2e-3)])
def test_a_logit_may_deviate_by_so_much_and_no_more(
    tmp_path: Path, largest: float, passes: float, fails: float
) -> None:
    """By 1e-4; where the largest is beyond 10, by 1e-5 of it."""
    state = resnet20()
    state["linear.bias"][0] = largest
    save_file(state, tmp_path / "upload")
    adopt_tensors(task(tmp_path / "upload", tmp_path))
    adopted = runtime.load(tmp_path / "draft", "cpu")
    images, logits = golden.read(tmp_path / "draft", adopted.manifest)
    assert (np.abs(logits).max() > 10) == (largest > 10)

    def moved(by: float) -> dict[str, Any]:
        return {**state, "linear.bias": state["linear.bias"] + by}

    assert compare(moved(passes), adopted, images, logits) == pytest.approx(passes, rel=0.2)
    with pytest.raises(JobRefused) as refused:
        compare(moved(fails), adopted, images, logits)
    assert refused.value.code == "logits_differ"


def starter_bundle(tmp_path: Path) -> Path:
    upload = tmp_path / "upload"
    folder = STARTERS / "mnist-residual"
    bundle.write_zip(upload, bundle.members(folder, "mnist-residual", 1), top="mnist-residual-1")
    return upload


def test_a_bundle_is_a_model_again_with_all_that_it_knew(tmp_path: Path) -> None:
    upload = starter_bundle(tmp_path)
    adopt_bundle(task(upload, tmp_path))
    before, after = Manifest.read(STARTERS / "mnist-residual"), Manifest.read(tmp_path / "draft")
    assert after.lineage.job == "job_x"
    assert after.lineage.origin is not None
    told = {"job": before.lineage.job, "origin": None}
    after = after.model_copy(update={"lineage": after.lineage.model_copy(update=told)})
    assert after == before.model_copy(update={"calibration_sha256": None})


def test_a_bundle_whose_weights_were_changed_is_refused(tmp_path: Path) -> None:
    upload, changed = starter_bundle(tmp_path), tmp_path / "changed"
    with zipfile.ZipFile(upload) as source, zipfile.ZipFile(changed, "w") as target:
        for member in source.infolist():
            content = bytearray(source.read(member))
            if member.filename.endswith("weights.safetensors"):
                content[-1] ^= 1
            target.writestr(member.filename, bytes(content))
    with pytest.raises(JobRefused, match="the bundle is damaged"):
        adopt_bundle(task(changed, tmp_path))


def changed_bundle(tmp_path: Path, change: Callable[[str, bytes], bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    changed = tmp_path / "changed"
    with zipfile.ZipFile(starter_bundle(tmp_path)) as source, zipfile.ZipFile(changed, "w", packed) as target:
        for member in source.infolist():
            name = member.filename.rpartition("/")[2]
            target.writestr(member.filename, change(name, source.read(member)))
    return changed


def with_other_manifest(**fields: object) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return json.dumps({**json.loads(content), **fields}).encode() if name == "model.json" else content

    return change


def test_a_bundle_whose_classes_cannot_be_called_so_is_refused(tmp_path: Path) -> None:
    upload = changed_bundle(tmp_path, with_other_manifest(classes=[*"abcdefghi", "j\x1b[2J"]))
    with pytest.raises(JobRefused, match="the bundle is broken: the class"):
        adopt_bundle(task(upload, tmp_path))


def test_a_bundle_that_names_too_few_classes_is_refused(tmp_path: Path) -> None:
    upload = changed_bundle(tmp_path, with_other_manifest(classes=["a", "b"]))
    with pytest.raises(JobRefused, match="2 classes for 10 outputs"):
        adopt_bundle(task(upload, tmp_path))


STARTER = Manifest.read(STARTERS / "mnist-residual").model_dump(mode="json")


@pytest.mark.parametrize(
    "fields",
    [
        {"calibration": {"temperature": math.inf}},
        {"preprocessing": {**STARTER["preprocessing"], "std": [math.inf]}},
        {"preprocessing": {**STARTER["preprocessing"], "mean": [math.nan]}},
    ],
)
def test_a_bundle_with_a_number_that_json_has_not_is_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    """It would be written as null, and no process could read the version."""
    with pytest.raises(JobRefused, match="the bundle is broken") as refused:
        adopt_bundle(task(changed_bundle(tmp_path, with_other_manifest(**fields)), tmp_path))
    assert refused.value.code == "broken_file"


@pytest.mark.parametrize("golden_file", [save({"images": np.zeros((0, 28, 28, 1), np.uint8)}), b"none"])
def test_a_bundle_is_refused_whose_files_are_right_by_their_digests_alone(tmp_path: Path, golden_file: bytes) -> None:
    told = with_other_manifest(golden_sha256=hashlib.sha256(golden_file).hexdigest())
    upload = changed_bundle(
        tmp_path, lambda name, content: golden_file if name == "golden.safetensors" else told(name, content)
    )
    with pytest.raises(JobRefused, match="the bundle is damaged"):
        adopt_bundle(task(upload, tmp_path))


def test_a_bundle_whose_weights_are_no_tensors_is_refused(tmp_path: Path) -> None:
    told = with_other_manifest(weights_sha256=hashlib.sha256(b"none").hexdigest())
    upload = changed_bundle(
        tmp_path, lambda name, content: b"none" if name == "weights.safetensors" else told(name, content)
    )
    with pytest.raises(JobRefused, match="the bundle is damaged"):
        adopt_bundle(task(upload, tmp_path))


def test_a_bundle_that_is_packed_in_another_way_is_refused(tmp_path: Path) -> None:
    odd = changed_bundle(tmp_path, lambda _, content: content, zipfile.ZIP_LZMA)
    with pytest.raises(JobRefused, match="packed in another way"):
        adopt_bundle(task(odd, tmp_path))


def test_a_bundle_that_does_not_unpack_is_refused(tmp_path: Path) -> None:
    deflated = changed_bundle(tmp_path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(deflated) as archive:
        member = next(each for each in archive.infolist() if each.filename.endswith("weights.safetensors"))
    content = bytearray(deflated.read_bytes())
    middle = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[middle : middle + 64] = bytes(range(64))
    deflated.write_bytes(content)
    with pytest.raises(JobRefused, match="the bundle is broken"):
        adopt_bundle(task(deflated, tmp_path))


def test_weights_that_give_no_numbers_are_refused(tmp_path: Path) -> None:
    state = build(NetworkSpec(name="mnist/residual", num_classes=10, in_channels=1)).state_dict()
    upload = tmp_path / "upload"
    save_file({name: torch.full_like(tensor, 1e38) for name, tensor in state.items()}, upload)
    with pytest.raises(JobRefused, match="logits are not finite"):
        adopt_tensors(task(upload, tmp_path))


def test_a_bundle_takes_no_other_classes(tmp_path: Path) -> None:
    with pytest.raises(JobRefused, match="has its own classes") as refused:
        adopt_bundle(task(starter_bundle(tmp_path), tmp_path, classes=["a", "b"]))
    assert refused.value.code == "bundle_is_complete"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"hello, world" * 20, "unsupported_file"),
        (b"", "unsupported_file"),
        (b"\xff" * 8 + b"{}", "unsupported_file"),
        (b"PK\x03\x04 and nothing more", "broken_file"),
    ],
)
def test_a_file_of_no_kind_is_refused_by_its_content(tmp_path: Path, content: bytes, code: str) -> None:
    upload = tmp_path / "model.pth"
    upload.write_bytes(content)
    with pytest.raises(JobRefused) as refused:
        format_of(upload)
    assert refused.value.code == code


def test_zips_that_pytorch_did_not_write_are_refused(tmp_path: Path) -> None:
    for names, said in ((["x/data.pkl", "x/constants.pkl"], "TorchScript"), (["cat.png"], "something else")):
        upload = tmp_path / "upload"
        with zipfile.ZipFile(upload, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        with pytest.raises(JobRefused, match=said):
            format_of(upload)
    with zipfile.ZipFile(upload, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10_000))
    with pytest.raises(JobRefused, match=r"not as torch\.save writes it"):
        format_of(upload)


def test_safetensors_that_lie_are_refused(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    head = b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'
    upload.write_bytes(len(head).to_bytes(8, "little") + head + bytes(16))
    assert format_of(upload) == "safetensors"
    with pytest.raises(JobRefused, match="the file is broken"):
        read(upload, "safetensors", scratch=tmp_path / "scratch", stop=Stop())


def test_the_reading_of_a_file_stops_when_it_is_to_stop(tmp_path: Path) -> None:
    class Stopped(Stop):
        @property
        def requested(self) -> bool:
            return True

    upload = tmp_path / "upload"
    torch.save(resnet20(), upload)
    with pytest.raises(JobStopped):
        read(upload, "torch", scratch=tmp_path / "scratch", stop=Stopped())
    assert not (tmp_path / "scratch").exists()


def test_a_group_that_is_told_to_stop_takes_no_file_for_broken(tmp_path: Path) -> None:
    class Told(Stop):
        """At its first look SIGTERM comes to the reading process too, as to the whole group; then it stops."""

        looks = 0

        def check(self) -> None:
            self.looks += 1
            if self.looks > 1:
                raise JobStopped
            for child in Path("/proc/thread-self/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)

    upload = tmp_path / "upload"
    torch.save(resnet20(), upload)
    with pytest.raises(JobStopped):
        read(upload, "torch", scratch=tmp_path / "scratch", stop=Told())


def test_what_a_later_claim_made_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)  # they would hold for all tests after this one
    run_dir = tmp_path / "jobs" / "job_x"
    for number in (1, 2, 3):
        (run_dir / f"claim-{number}" / "model").mkdir(parents=True)
        (run_dir / f"claim-{number}" / ".state.x.tmp").touch()
    (run_dir / "spec.json").write_text('{"kind": "adopt", "upload": "job_x", "register_as": "m"}')
    (run_dir / "upload").write_bytes(b"no model")
    with pytest.raises(JobRefused):
        adopt(JobArguments(run_dir=run_dir, claim=2, data_dir=tmp_path, device="cpu"), Stop())
    left = {path.relative_to(run_dir).as_posix() for path in run_dir.glob("claim-*/*")}
    assert left == {"claim-3/model", "claim-3/.state.x.tmp"}


def test_an_upload_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)  # they would hold for all tests after this one
    run_dir = tmp_path / "jobs" / "job_x"
    run_dir.mkdir(parents=True)
    (run_dir / "spec.json").write_text('{"kind": "adopt", "upload": "job_x", "register_as": "m"}')
    with pytest.raises(JobRefused) as refused:
        adopt(JobArguments(run_dir=run_dir, claim=1, data_dir=tmp_path, device="cpu"), Stop())
    assert (refused.value.code, REFUSED) == ("upload_missing", 78)
