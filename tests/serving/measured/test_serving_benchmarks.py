"""What the benchmarks of serving compare: loops without a server, and ratios of what was measured."""

import argparse
import io
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from serving_toys import picture

from app.engine.runtimes import records
from app.engine.runtimes.base import REFERENCE
from benchmarks import serve
from benchmarks.peers.__main__ import ratios as ratios_of_peers
from benchmarks.roofline import Loop, Part, loop_of, timed
from benchmarks.serving import arguments
from models.catalog import Catalog
from models.manifest import Manifest
from store.layout import Layout
from store.settings import Precision, RuntimeName

ON_A_CPU = {"alone": {"images_per_second": 50.0, "p50_ms": 20.0}, "divided": {"images_per_second": 80.0}}
ON_A_GPU = {
    "alone": {"images_per_second": 300.0, "p50_ms": 3.0},
    "decode": {"images_per_second": 5000.0},
    "forward": {"images_per_second": 20_000.0},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, artifacts: list[Path]) -> Layout:
    """A data directory with a model that the float32 network serves here, fastest by four images at a time."""
    layout = Layout(tmp_path_factory.mktemp("roofline") / "data").create()
    Catalog(layout.models).publish("toy", artifacts[0], "job_0")
    manifest = Manifest.read(layout.models / "toy" / "1")
    cache = records.Cache(layout.runtimes, model="toy", version=1, device="cpu", cores=records.cores())
    rates = records.Measured(candidate=REFERENCE, alone=10.0, loaded={1: 10.0, 2: 19.6, 4: 20.0})
    cache.write(
        records.Record(
            weights_sha256=manifest.weights_sha256,
            machine=cache.machine,
            asked=Precision.BF16,
            runtime=RuntimeName.AUTO,
            measured=(rates,),
        )
    )
    return layout


@pytest.mark.parametrize(
    ("part", "single", "images"),
    [
        (Part.DECODE, False, 1),
        (Part.FORWARD, False, 4),  # the fastest
        (Part.BOTH, False, 2),  # as an engine would have it: nearly as fast, and nobody waits for the others
        (Part.BOTH, True, 1),
        (Part.FORWARD, True, 1),
    ],
)
def test_a_bare_loop_takes_all_of_an_images_way_or_a_part_of_it(
    measured: Layout, tmp_path: Path, part: Part, single: bool, images: int
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(picture(number))
    asked = argparse.Namespace(data=measured.root, model="toy", files=files, part=part, single=single)
    loop = loop_of(argparse.Namespace(**vars(asked), precision=Precision.BF16, device="cpu", cores=1, threads=1))
    assert loop.images == images
    for file in files:
        file.unlink()  # they were read before the clock runs
    loop.once(0)
    loop.once(images)


def test_decoding_needs_no_runtime_and_computing_one_that_was_measured(artifacts: list[Path], tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data").create()
    Catalog(layout.models).publish("toy", artifacts[0], "job_0")
    (tmp_path / "a.png").write_bytes(picture())
    asked = {"data": layout.root, "model": "toy", "files": [tmp_path / "a.png"], "single": False}
    asked |= {"precision": Precision.BF16, "device": "cpu", "cores": 1, "threads": 1}
    loop_of(argparse.Namespace(**asked, part=Part.DECODE)).once(0)
    with pytest.raises(SystemExit, match="not measured for bf16 on cpu"):
        loop_of(argparse.Namespace(**asked, part=Part.FORWARD))


def test_each_thread_of_a_bare_loop_counts_and_begins_when_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    seen: set[str] = set()

    def once(_: int) -> None:
        seen.add(threading.current_thread().name)
        time.sleep(0.02)

    found = timed(Loop(once, 4), seconds=0.5, threads=3, cores=1)
    assert capsys.readouterr().out == "ready\n"
    assert len(seen) == 3
    assert found["batch"] == 4
    assert 4 / 0.02 < found["images_per_second"] <= 3 * 4 / 0.02


def test_a_gpu_is_taken_where_there_is_one_and_each_device_has_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*words: str) -> tuple[str, list[int]]:
        found = arguments(argparse.ArgumentParser(), words)
        return found.device, found.connections

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert asked() == ("cuda", [1, 64, 512])
    assert asked("--device", "cpu") == ("cpu", [1, 8, 32, 64])
    assert asked("--connections", "2,4") == ("cuda", [2, 4])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert asked() == ("cpu", [1, 8, 32, 64])
    with pytest.raises(SystemExit):
        asked("--device", "cuda")


@pytest.mark.parametrize(
    ("device", "loops"),
    [
        ("cpu", {"alone": ("--single", 1), "divided": (None, 3), "threads": ("3", 1)}),
        ("cuda", {"alone": ("--single", 1), "decode": ("decode", 3), "forward": ("forward", 1)}),
    ],
)
def test_bare_loops_share_the_cores_of_a_cpu_and_feed_a_gpu_from_all_of_them(
    monkeypatch: pytest.MonkeyPatch, device: str, loops: dict[str, Any]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(serve, "side_by_side", lambda command, *, split: {"command": command, "split": split})
    found = serve.bare(Path("var"), "toy", "bf16", [], argparse.Namespace(device=device, seconds=1.0))
    for name, (last, processes) in loops.items():
        command = found[name]["command"]
        assert command[command.index("--device") + 1] == device
        assert command[-1] == (last or device)
        assert len(found[name]["split"]) == processes
    assert set(found) == set(loops)


@pytest.mark.parametrize(("bare", "limit"), [(ON_A_CPU, 80.0), (ON_A_GPU, 5000.0)])
def test_what_is_served_is_compared_with_the_better_loop_of_a_cpu_and_the_slower_part_of_a_gpu(
    bare: dict[str, Any], limit: float
) -> None:
    assert serve.limit(bare) == limit
    served = {"1": {"images_per_second": 40.0, "p50_ms": 24.0, "p99_ms": 36.0}}
    found = {"bf16": {"bare": bare, "served": served}, "handwritten": {"1": {"images_per_second": 10.0}}}
    assert serve.ratios(found)["bf16"]["1"] == {
        "of_bare": round(40.0 / limit, 3),
        "over_handwritten": 4.0,
        "p99_over_p50": 1.5,
        "p50_over_bare": 24.0 / bare["alone"]["p50_ms"],
    }


def test_a_peer_is_compared_where_it_answered() -> None:
    def served(rate: float) -> dict[str, float]:
        return {"images_per_second": rate, "p50_ms": 10.0, "p99_ms": 15.0}

    ours = {"1": served(90.0), "8": served(120.0)}
    ways = {"as_it_comes": {"1": served(30.0), "8": served(60.0)}, "bf16": {"1": served(45.0), "failed": "it ended"}}
    found = ratios_of_peers({"resnetd": {"bf16": ours}, "mosec": ways}, [1, 8])
    assert found["bf16"] == {
        "over": {"mosec as_it_comes": {"1": 3.0, "8": 2.0}, "mosec bf16": {"1": 2.0, "8": None}},
        "p99_over_p50": {"1": 1.5, "8": 1.5},
    }
