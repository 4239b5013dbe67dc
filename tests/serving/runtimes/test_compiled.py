"""torch.compile ahead of time, on this machine's CPU: built, proven, measured, and then served from what was built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serving_toys import assert_near, make_artifact

from app.engine.runtimes import compiled
from app.engine.runtimes.base import Unavailable
from app.engine.runtimes.records import Cache, Record, cores
from app.engine.selection import Selection
from models.runtime import load
from store.settings import Precision, RuntimeName, Settings

COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.mark.timeout(900)
@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_a_network_is_compiled_in_a_process_of_its_own_and_serves_from_then_on(tmp_path: Path) -> None:
    folder, data = make_artifact(tmp_path / "model", job="job_a", seed=3), tmp_path / "data"
    settings = {"RESNETD_DATA": str(data), "RESNETD_RUNTIME": "compiled", "RESNETD_BATCHING": "toy=6"}
    command = [sys.executable, "-m", "app.engine.runtimes", folder, "--model", "toy", "--version", "1"]
    mine = Cache(data / "runtimes", model="toy", version=1, device="cpu", cores=cores())
    former = data / "runtimes" / "other-1-0123456789ab"
    for needed in (data / "models" / "other" / "1", former):
        needed.mkdir(parents=True)
    left = Record(
        weights_sha256="",
        machine="0123456789ab",
        hardware=mine.hardware,
        asked=Precision.BF16,
        runtime=RuntimeName.AUTO,
        measured=(),
    )
    former.with_suffix(".json").write_text(left.model_dump_json())
    subprocess.run(
        [*command, "--device", "cpu"],
        env={**os.environ, **settings, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")},
        check=True,
        timeout=800,
    )

    assert {place.name for place in (data / "runtimes").iterdir()} == {mine.name, f"{mine.name}.json"}

    def selection(batching: str) -> Selection:
        asked = Settings(data=data, runtime=RuntimeName.COMPILED, batching=batching)
        return Selection(folder, model="toy", version=1, device="cpu", settings=asked)

    selected = selection("toy=6").known()
    assert selected is not None
    assert (selected.shown["name"], selected.shown["precision"]) == ("compiled", "bf16")
    assert selected.computing.max_batch == 6
    assert set(selected.shown["images_per_second"]["loaded"]) == {"1", "4", "6"}  # the batches that serve
    assert selection("toy=5").known() is None  # which were not measured
    reference = load(folder, "cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    for compute in (selected.computing.wide, selected.computing.narrow or selected.computing.wide):
        for count in (1, 2, 6, 7):
            assert_near(compute(pixels[:count]), reference.outputs(pixels[:count]), reference.manifest)


def test_without_a_compiler_it_says_so(artifacts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="C\\+\\+ compiler"):
        compiled.build(load(artifacts[0], "cpu"), tmp_path)
