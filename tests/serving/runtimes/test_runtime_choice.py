"""Which runtime serves: what may, what is fastest, in which batches; and what is kept of it."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from serving_toys import make_artifact
from torch import nn

from app.engine import __main__ as engine
from app.engine.batch import Batcher, Computing
from app.engine.runtimes import gates, measure, records, tuning
from app.engine.runtimes.base import REFERENCE, Candidate, Loaded, Numbers, candidates
from app.engine.runtimes.choose import batching, choose, wide_pays
from app.engine.runtimes.records import Cache, Measured, Record, kind_of, sweep
from app.engine.selection import Selected, Selection
from models import probes
from models.manifest import Manifest
from models.runtime import Outputs, Runtime
from store.files import sha256_of
from store.settings import BatchLimits, Precision, RuntimeName, Settings

FOLDED = Candidate(RuntimeName.FOLDED, Numbers.BF16)
FLOAT = Candidate(RuntimeName.OPENVINO, Numbers.FP32)
BF16 = Candidate(RuntimeName.OPENVINO, Numbers.BF16)
COMPILED = Candidate(RuntimeName.COMPILED, Numbers.BF16)
INT8 = Candidate(RuntimeName.OPENVINO, Numbers.INT8)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.read(make_artifact(tmp_path_factory.mktemp("toy") / "model", job="job_a", network=False))


def measured(candidate: Candidate, alone: float, loaded: float, *, refused: str | None = None) -> Measured:
    return Measured(candidate=candidate, alone=alone, loaded={1: loaded}, refused=refused)


ALL = (measured(REFERENCE, 20, 25), measured(FLOAT, 40, 50), measured(BF16, 110, 130), measured(INT8, 350, 280))


@pytest.mark.parametrize(
    ("precision", "best"), [(Precision.EXACT, FLOAT), (Precision.BF16, BF16), (Precision.FASTEST, INT8)]
)
def test_the_fastest_that_the_precision_allows_serves(precision, best):
    chosen = choose(ALL, precision=precision, runtime=RuntimeName.AUTO)
    assert chosen is not None
    assert chosen.candidate == best


def test_among_equally_fast_ones_the_most_exact_serves():
    near = (measured(BF16, 102, 102), measured(FLOAT, 100, 100), measured(REFERENCE, 50, 50))
    chosen = choose(near, precision=Precision.BF16, runtime=RuntimeName.AUTO)
    assert chosen is not None
    assert chosen.candidate == FLOAT


def test_both_the_lone_image_and_the_crowd_count():
    lopsided = (measured(BF16, 10, 130), measured(FOLDED, 60, 90))
    chosen = choose(lopsided, precision=Precision.BF16, runtime=RuntimeName.AUTO)
    assert chosen is not None
    assert chosen.candidate == FOLDED


def test_what_was_refused_never_serves_and_a_runtime_asked_for_by_name_does_even_if_it_is_slower():
    refused = (measured(REFERENCE, 20, 25), measured(INT8, 350, 280, refused="accuracy drops"))
    for runtime in (RuntimeName.AUTO, RuntimeName.OPENVINO):
        chosen = choose(refused, precision=Precision.FASTEST, runtime=runtime)
        assert chosen is not None
        assert chosen.candidate == REFERENCE
    slow = (measured(REFERENCE, 20, 25), measured(FOLDED, 10, 12))
    chosen = choose(slow, precision=Precision.BF16, runtime=RuntimeName.FOLDED)
    assert chosen is not None
    assert chosen.candidate == FOLDED
    assert choose((), precision=Precision.BF16, runtime=RuntimeName.AUTO) is None


def test_candidates_are_those_of_the_device_and_the_reference_is_always_one():
    assert {each.runtime for each in candidates("cuda", precision=Precision.FASTEST, runtime=RuntimeName.AUTO)} == {
        RuntimeName.EAGER,
        RuntimeName.FOLDED,
        RuntimeName.CUDA_GRAPHS,
        RuntimeName.COMPILED,
    }
    assert INT8 not in candidates("cpu", precision=Precision.BF16, runtime=RuntimeName.AUTO)
    exact = candidates("cpu", precision=Precision.EXACT, runtime=RuntimeName.AUTO)
    assert {each.numbers for each in exact} == {Numbers.FP32}
    assert candidates("cpu", precision=Precision.EXACT, runtime=RuntimeName.OPENVINO) == (REFERENCE, FLOAT)


def test_a_lone_image_gets_all_cores_only_where_that_is_sooner_than_one():
    assert wide_pays(measured(BF16, 112, 134), streams=2)  # 9 ms against 15
    assert not wide_pays(measured(BF16, 600, 1500), streams=2)  # 1.7 ms against 1.3
    assert wide_pays(measured(BF16, 900, 1500), streams=2)


def test_the_largest_batch_is_the_smallest_that_reaches_full_speed():
    assert batching({1: 6.4, 2: 6.4, 4: 6.5, 8: 6.6}, streams=2) == (1, 0.0)
    assert batching({1: 197.0, 8: 320.0, 16: 345.0, 32: 351.0}, streams=1) == (16, 0.0)


def test_what_happens_around_each_batch_makes_larger_ones_worth_it():
    assert batching({1: 202.4, 4: 212.4, 8: 210.8, 16: 208.9, 32: 212.4}, streams=2) == (4, 0.0)
    assert batching({1: 4000.0, 4: 4100.0, 8: 4100.0, 16: 4000.0, 32: 4000.0}, streams=2) == (32, 0.0)


def test_a_batch_may_wait_only_where_a_larger_one_is_worth_it_and_others_are_computed_meanwhile():
    assert batching({1: 500.0, 8: 900.0}, streams=2) == (8, 4.0)  # one image takes a core 4 ms
    assert batching({1: 50.0, 8: 90.0}, streams=2) == (8, 5.0)
    assert batching({1: 500.0, 8: 600.0}, streams=2) == (8, 0.0)
    assert batching({1: 500.0, 8: 900.0}, streams=1) == (8, 0.0)


def test_what_a_person_says_about_batches_holds_over_what_was_found():
    settings = Settings(batching="resnet50=16/2.5, other=64")
    assert settings.batch_limits("resnet50").over(4, 0.0) == (16, 2.5)
    assert settings.batch_limits("other").over(4, 1.0) == (64, 1.0)
    assert settings.batch_limits("third") == BatchLimits()
    assert BatchLimits().over(4, 1.0) == (4, 1.0)
    for wrong in ("resnet50", "resnet50=0", "resnet50=16/", "a=1;b=2"):
        with pytest.raises(ValidationError, match="as in resnet50=16/2"):
            Settings(batching=wrong)


def test_batches_are_measured_up_to_the_largest_that_a_person_asked_for():
    assert measure.sizes("cpu", max_batch=None) == (1, 4, 8, 16, 32)
    assert measure.sizes("cpu", max_batch=64) == (1, 4, 8, 16, 32, 64)
    assert measure.sizes("cpu", max_batch=6) == (1, 4, 6)
    assert measure.sizes("cpu", max_batch=1) == (1,)
    assert measure.sizes("cuda", max_batch=256) == measure.sizes("cuda", max_batch=None)
    assert measure.sizes("cuda", max_batch=512)[-2:] == (256, 512)


@pytest.mark.parametrize("longest", [0.5, 0.0])
def test_the_size_that_was_asked_for_is_measured_also_where_a_batch_of_it_takes_long(manifest, monkeypatch, longest):
    monkeypatch.setattr(measure, "_LONGEST", longest)
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    computed = []

    def compute(images):
        computed.append(len(images))
        return Outputs(logits=images[:, 0, 0], embedding=images[:, 0, 0])

    def found(max_batch):
        sizes = measure.sizes("cpu", max_batch=max_batch)
        ready = {REFERENCE: Loaded(wide=compute)}
        return measure.rates(ready, manifest.preprocessing, sizes=sizes, max_batch=max_batch)[REFERENCE].loaded

    short = [size for size in (1, 4, 8, 16, 32) if longest or size == 1]
    assert list(found(64)) == [*short, 64]
    assert computed.count(64) == (3 if longest else 1) * 3  # each round calls it three times
    assert list(found(None)) == short


def test_a_candidate_that_fails_while_it_is_measured_costs_no_other_and_keeps_the_sizes_that_went_well(
    manifest, monkeypatch
):
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    most = {REFERENCE: 32, FOLDED: 8, BF16: 0}
    calls = dict.fromkeys(most, 0)

    def loaded(candidate):
        def compute(images):
            calls[candidate] += 1
            if len(images) > most[candidate]:
                raise MemoryError("no room for a batch")
            return Outputs(logits=images[:, 0, 0], embedding=images[:, 0, 0])

        return Loaded(wide=compute)

    ready = {candidate: loaded(candidate) for candidate in most}
    sizes = measure.sizes("cpu", max_batch=None)
    found = measure.rates(ready, manifest.preprocessing, sizes=sizes, max_batch=None)
    assert {candidate: list(rates.loaded) for candidate, rates in found.items()} == {
        REFERENCE: [1, 4, 8, 16, 32],
        FOLDED: [1, 4, 8],
        BF16: [],
    }
    assert [found[candidate].failed for candidate in most] == [None, None, "MemoryError: no room for a batch"]
    assert calls[BF16] == 1


def test_measuring_that_was_given_up_or_failed_is_done_again_until_the_engine_can_change_over(monkeypatch, caplog):
    ends: list[bool | OSError] = [False, OSError("no process"), True]
    said = []

    def computes(value):
        return lambda images: Outputs(logits=np.full((len(images), 3), value, np.float32), embedding=images[:, 0, 0])

    class Measures(Selection):
        device = "cpu"

        def __init__(self):
            pass

        async def measure(self):
            end = ends.pop(0)
            if isinstance(end, OSError):
                raise end
            return end

        def known(self):
            return Selected(computing=Computing(wide=computes(2.0)), shown={"name": "folded"})

    async def main():
        batcher = Batcher(Computing(wide=computes(1.0)))
        async with asyncio.timeout(10):
            await engine._improve(Measures(), batcher)
            deadline = asyncio.get_running_loop().time() + 10
            computed = await batcher.submit(np.zeros((32, 32, 3), np.uint8), deadline=deadline)
        return computed.logits[0]

    monkeypatch.setattr(engine, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(engine, "_say", lambda **fields: said.append(fields))
    assert asyncio.run(main()) == 2.0
    assert not ends
    assert said == [{"state": "ready", "device": "cpu", "runtime": {"name": "folded"}}]
    assert [each.exc_info[1].args for each in caplog.records if each.exc_info] == [("no process",)]


LOGITS = np.random.default_rng(0).normal(0, 3, (400, 3)).astype(np.float32)


def test_a_runtime_may_deviate_as_far_as_its_numbers_allow(manifest):
    moved = LOGITS + np.array([0.01, 0, 0], dtype=np.float32)
    assert gates.compare(LOGITS, LOGITS, numbers=Numbers.FP32, manifest=manifest) == gates.Verdict(0.0)
    refused = gates.compare(moved, LOGITS, numbers=Numbers.FP32, manifest=manifest)
    assert refused.refused is not None
    assert "allowed are 0.001" in refused.refused
    assert 1e-3 < refused.deviation < 2e-2
    far = gates.compare(moved * 1.2, LOGITS, numbers=Numbers.BF16, manifest=manifest)
    assert far.refused is not None
    assert "allowed are 0.02" in far.refused


def test_bf16_must_name_the_same_class_on_99_of_100(manifest):
    ties = LOGITS.copy()
    ties[:, 1] = ties[:, 0] = 5.0
    ours = ties.copy()
    ours[:4, 1] += 1e-3  # the same probability, another class: 4 of 400
    assert gates.compare(ours, ties, numbers=Numbers.BF16, manifest=manifest).refused is None
    ours[:5, 1] += 1e-3
    refused = gates.compare(ours, ties, numbers=Numbers.BF16, manifest=manifest).refused
    assert refused == "the top class is the same on 98.8% of the probes, needed are 99%"
    assert gates.compare(ours, ties, numbers=Numbers.FP32, manifest=manifest).refused is None  # ties, and nothing else


def test_what_is_not_finite_is_refused_whatever_the_numbers(manifest):
    broken = LOGITS.copy()
    broken[7, 1] = np.nan
    for numbers in Numbers:
        assert gates.compare(broken, LOGITS, numbers=numbers, manifest=manifest).refused is not None


def test_int8_serves_only_where_accuracy_on_labelled_images_drops_by_half_a_point_at_most():
    labels = LOGITS.argmax(axis=1).astype(np.int64)
    wrong = LOGITS.copy()
    wrong[:2] = -wrong[:2]
    assert gates.accuracy(wrong, LOGITS, labels) is None
    wrong[2:3] = -wrong[2:3]
    assert gates.accuracy(wrong, LOGITS, labels) == "accuracy drops by 0.8 points on 400 images, allowed are 0.5"
    few = gates.accuracy(LOGITS[:199], LOGITS[:199], labels[:199])
    assert few is not None
    assert "too few" in few


def record(cache: Cache, *, runtime: RuntimeName = RuntimeName.AUTO, max_batch: int | None = None) -> Record:
    return Record(
        weights_sha256="abc",
        machine=cache.machine,
        asked=Precision.BF16,
        runtime=runtime,
        max_batch=max_batch,
        measured=ALL,
    )


def read(
    cache: Cache,
    *,
    weights: str = "abc",
    precision: Precision = Precision.BF16,
    runtime: RuntimeName = RuntimeName.AUTO,
    max_batch: int | None = None,
) -> Record | None:
    return cache.read(weights_sha256=weights, precision=precision, runtime=runtime, max_batch=max_batch)


def test_a_record_counts_for_the_same_weights_the_same_machine_and_no_more_than_it_was_made_for(tmp_path: Path):
    cache = Cache(tmp_path, model="toy", version=3, device="cpu", cores=2)
    assert read(cache) is None
    cache.write(record(cache))
    assert read(cache) == read(cache, precision=Precision.EXACT) == record(cache)
    assert read(cache, runtime=RuntimeName.FOLDED) == record(cache)
    assert read(cache, precision=Precision.FASTEST) is None
    assert read(cache, weights="other") is None
    assert read(Cache(tmp_path, model="toy", version=3, device="cpu", cores=1)) is None
    assert read(cache, max_batch=64) is None
    cache.write(record(cache, max_batch=64))
    assert read(cache) is None
    assert read(cache, max_batch=32) is None
    assert read(cache, max_batch=64) == record(cache, max_batch=64)
    cache.write(record(cache, runtime=RuntimeName.OPENVINO))
    assert read(cache) is None
    assert read(cache, runtime=RuntimeName.OPENVINO) is not None
    cache.forget()
    assert read(cache, runtime=RuntimeName.OPENVINO) is None
    cache.write(record(cache))
    (file,) = tmp_path.glob("*.json")
    file.write_text("{")
    assert read(cache) is None


def test_what_is_known_of_a_network_holds_for_other_versions_with_the_same(tmp_path: Path, manifest: Manifest):
    network = kind_of(manifest)
    assert network == "cifar/resnet8 3x32x32 3"
    assert kind_of(manifest.model_copy(update={"test_time_flip": True})) == f"{network} twice"
    caches = [Cache(tmp_path, model=name, version=1, device="cpu", cores=2) for name in ("a", "b", "c", "old")]
    for cache, of in zip(caches, (network, network, "cifar/resnet8 3x32x32 4", ""), strict=True):
        cache.write(record(cache).model_copy(update={"version": cache.version, "network": of}))
    os.utime(next(tmp_path.glob("a-1-*.json")), (1, 1))
    new = Cache(tmp_path, model="a", version=2, device="cpu", cores=2)

    def kin(cache: Cache, *, precision: Precision = Precision.BF16, max_batch: int | None = None) -> str | None:
        found = cache.kin(network=network, precision=precision, runtime=RuntimeName.AUTO, max_batch=max_batch)
        return found and found.version

    assert kin(new) == "b@1"  # the newest
    assert kin(caches[1]) == "a@1"  # nobody is its own
    assert kin(new, precision=Precision.FASTEST) is None
    assert kin(new, max_batch=64) is None
    assert kin(Cache(tmp_path, model="a", version=2, device="cpu", cores=1)) is None


@pytest.mark.parametrize(
    ("there", "refused"),
    [(ALL, None), (ALL, "a probability deviates"), ((measured(COMPILED, 400, 400), *ALL), None)],
)
def test_another_versions_runtime_serves_where_it_fits_this_one_and_is_soon_built(
    tmp_path, manifest, monkeypatch, there, refused
):
    tried: list[Candidate] = []

    def judged(which, *_: object, **__: object):
        tried.extend(which)
        found = tuning._Tried()
        found.found = {each: Measured(candidate=each, refused=refused, files={"a": "b"}) for each in which}
        return found

    monkeypatch.setattr(tuning, "_try", judged)
    cache = Cache(tmp_path, model="toy", version=2, device="cpu", cores=2)
    known = {"version": "toy@1", "network": kind_of(manifest), "measured": there}
    kin = record(cache).model_copy(update=known)

    def taken(kin: Record) -> Record | None:
        reference = Runtime(manifest=manifest, network=nn.Identity(), normalise=None, device=torch.device("cpu"))
        settings = {"precision": Precision.BF16, "runtime": RuntimeName.AUTO, "cores": 2}
        return tuning.take_over(reference, tmp_path, cache, kin, **settings)

    found = taken(kin)
    assert tried == ([BF16] if there is ALL else [])
    if there is not ALL or refused:
        assert found is None
        return
    assert found is not None
    assert found.like == "toy@1"
    assert (found.hardware, found.libraries) == (cache.hardware, records.libraries())
    assert found.measured == (measured(BF16, 110, 130).model_copy(update={"files": {"a": "b"}}),)
    again = taken(kin.model_copy(update={"like": "toy@2"}))
    assert again is not None
    assert again.like is None


def test_converted_networks_are_used_only_as_they_were_written(tmp_path: Path):
    cache = Cache(tmp_path, model="toy", version=3, device="cpu", cores=2)
    file = cache.folder / "openvino.bin"
    file.write_bytes(b"weights")
    files = {"openvino.bin": sha256_of(file)}
    assert cache.checked(files) == cache.folder
    file.write_bytes(b"other")
    assert cache.checked(files) is None
    file.unlink()
    assert cache.checked(files) is None


def test_what_belongs_to_versions_that_are_gone_is_removed(tmp_path: Path):
    models, root = tmp_path / "models", tmp_path / "runtimes"
    (models / "a-b" / "1").mkdir(parents=True)
    for version in (1, 2):
        cache = Cache(root, model="a-b", version=version, device="cpu", cores=1)
        (cache.folder / "openvino.xml").write_text("x")
        cache.write(record(cache))
    sweep(root, models, keep=cache.name)  # of version 2, which is gone
    assert len(list(root.iterdir())) == 4
    sweep(root, models, keep="")
    assert {place.name.rpartition("-")[0] for place in root.iterdir()} == {"a-b-1"}
    assert len(list(root.iterdir())) == 2


def test_what_former_libraries_left_is_removed_and_nothing_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def made(model: str, *, cores: int = 2, **told: str) -> Cache:
        for each in (records.machine, records.hardware, records.libraries):
            each.cache_clear()
        cache = Cache(tmp_path, model=model, version=1, device="cpu", cores=cores)
        (cache.folder / "openvino.xml").write_text("x")
        cache.write(record(cache).model_copy(update={"hardware": cache.hardware, **told}))
        return cache

    def upgraded(library: str) -> str:
        return f"{library} 99"

    with monkeypatch.context() as before:
        before.setattr(records, "_version", upgraded)
        former = [made("a"), made("b")]
        before.setattr(records.platform, "node", lambda: "another-host")
        others = [made("c")]
    with monkeypatch.context() as before:
        before.setattr(records, "_version", upgraded)
        others += [made("d", cores=1), made("e", hardware="")]
    mine = made("a")
    mine.sweep_former()
    there = {place.name for place in tmp_path.iterdir()}
    assert there == {name for cache in (mine, *others) for name in (cache.name, f"{cache.name}.json")}
    assert not {cache.name for cache in former} & there


@pytest.mark.parametrize(("side", "channels", "kept"), [(28, 1, 120), (35, 3, 120), (112, 3, 120)])
def test_probes_are_read_as_they_were_when_their_logits_were_computed(manifest, tmp_path, side, channels, kept):
    draw = np.random.default_rng(0)
    small = draw.integers(0, 256, (120, 7, 7, channels), dtype=np.uint8)
    images = small.repeat(side // 7, 1).repeat(side // 7, 2)
    labels = draw.integers(0, 3, 120)
    seen = []

    def logits(pixels):
        seen.append(pixels)
        return pixels.reshape(len(pixels), -1)[:, :3].astype(np.float32)

    sha256 = probes.write(tmp_path, calibration=images, heldout=images, labels=labels, logits=logits)
    read = probes.read(tmp_path, manifest.model_copy(update={"calibration_sha256": sha256}))
    assert read is not None
    assert len(read.calibration) == kept
    assert len(read.heldout) == len(read.labels) == len(read.logits) == kept
    assert np.array_equal(read.heldout, seen[0])
    of = [int(np.abs(images.astype(int) - image).mean((1, 2, 3)).argmin()) for image in read.heldout]
    assert sorted(of) == list(range(kept))
    assert np.abs(read.heldout.astype(int) - images[of]).mean() < 6
    assert np.array_equal(read.labels, labels[of])
    assert (tmp_path / "calibration.safetensors").stat().st_size < 26_000_000


def test_probes_for_which_there_is_no_room_leave_no_class_out(manifest, tmp_path, monkeypatch):
    """Datasets are in the order of their classes: the first half of the images would be half of the classes."""
    monkeypatch.setattr(probes, "_RAW_BYTES", 0)
    monkeypatch.setattr(probes, "_JPEG_BYTES", 30_000)
    labels = np.repeat(np.arange(10), 20)
    images = (25 * labels).astype(np.uint8).repeat(256).reshape(200, 16, 16, 1)

    def logits(pixels):
        return np.zeros((len(pixels), 3), np.float32)

    sha256 = probes.write(tmp_path, calibration=images, heldout=images, labels=labels, logits=logits)
    read = probes.read(tmp_path, manifest.model_copy(update={"calibration_sha256": sha256}))
    assert read is not None
    for kept in (read.heldout, read.calibration):
        assert 50 < len(kept) < 150
        assert set(np.rint(kept.mean((1, 2, 3)) / 25).astype(int)) == set(range(10))
    assert np.array_equal(np.rint(read.heldout.mean((1, 2, 3)) / 25), read.labels)


def test_a_model_without_probes_or_with_others_has_none(manifest, tmp_path):
    assert probes.read(tmp_path, manifest) is None
    named = manifest.model_copy(update={"calibration_sha256": "abc"})
    assert probes.read(tmp_path, named) is None
    (tmp_path / "calibration.safetensors").write_bytes(b"something else")
    assert probes.read(tmp_path, named) is None
