"""A request's way through the engine, with a device that the test holds in its hand."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from serving_toys import CLASSES, make_artifact, picture

from app.engine import pipeline as pipeline_module
from app.engine.admission import Overloaded
from app.engine.batch import Batcher, ComputeFailed, Computing
from app.engine.cost import cheap
from app.engine.decode import Read, reader
from app.engine.pipeline import Pipeline
from app.engine.ranking import top_k
from app.engine.tensors import Refused
from app.inference.limits import Limits
from app.inference.protocol import ClassifyAnswer, InferAnswer, Label, Output, TensorInput
from models.images import ImageWarning
from models.manifest import Calibration, Manifest
from models.runtime import Outputs, Runtime, load, probabilities


class Device:
    """Gives every image the same logits, and its first pixel as embedding, once it is let go."""

    def __init__(self) -> None:
        self.row = np.log(np.array([0.2, 0.5, 0.3], dtype=np.float32))
        self.computed = 0
        self.started = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        self.started.release()
        assert self.go.wait(timeout=20)
        self.computed += len(images)
        embedding = images[:, 0, 0].astype(np.float32)
        return Outputs(logits=np.tile(self.row, (len(images), 1)), embedding=embedding)


def no_reference() -> Runtime:
    raise AssertionError("nothing here needs the float32 network")


@pytest.fixture
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.read(make_artifact(tmp_path_factory.mktemp("toy") / "model", job="job_a", network=False))


def with_pipeline(
    manifest: Manifest,
    test: Callable[[Pipeline, Device], Awaitable[None]],
    *,
    images: int = 4,
    makes: bool = False,
    read: Read | None = None,
    reference: Callable[[], Runtime] = no_reference,
) -> None:
    """`makes`: images are made of their files in the device's thread, else on a thread for decoding."""

    async def main() -> None:
        device = Device()
        batcher = Batcher(Computing(wide=device, makes=makes))
        pipeline = Pipeline(
            manifest,
            batcher,
            read=read or reader(manifest.preprocessing, max_pixels=10_000, exact=True),
            limits=Limits(images=images, bytes=1_000_000),
            decode_threads=1,
            reference=reference,
        )
        try:
            async with asyncio.timeout(20):
                await test(pipeline, device)
        finally:
            device.go.set()

    asyncio.run(main())


def test_corrupt_images_fail_alone_with_their_own_errors(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        images = [picture(1), b"", b"no image", picture(2)[:100], picture(3), picture(4, size=101)]
        answer = await pipeline.classify(images, k=2, timeout=10)
        codes = [each.error and each.error.code for each in answer.results]
        assert codes == [None, "empty_image", "unsupported_format", "corrupt_image", None, "image_too_large"]
        assert [each.index for each in answer.results] == list(range(6))
        assert [label.label for label in answer.results[4].top_k] == ["dog", "ship"]
        assert device.computed == 2
        assert answer.timings_ms.total >= answer.timings_ms.decode > 0

    with_pipeline(manifest, test, images=6)


@pytest.mark.parametrize("makes", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), np.zeros((31, 32, 3), np.uint8)],
)
def test_whatever_goes_wrong_with_an_image_is_its_own_error_and_no_neighbours(
    manifest: Manifest, wrong: Exception | npt.NDArray[np.uint8], makes: bool
) -> None:
    plain, bad = reader(manifest.preprocessing, max_pixels=10_000, exact=True), picture(2)

    def read(data: bytes | memoryview) -> tuple[npt.NDArray[np.uint8], tuple[ImageWarning, ...]]:
        if data != bad:
            return plain(data)
        if isinstance(wrong, Exception):
            raise wrong
        return wrong, ()

    async def test(pipeline: Pipeline, device: Device) -> None:
        busy = asyncio.create_task(pipeline.classify([picture()], k=1, timeout=10))
        await asyncio.to_thread(device.started.acquire)
        requests = [[picture(1), bad], [picture(3)], [bad], [picture(4)]]  # while the device works, they gather
        waiting = [asyncio.create_task(pipeline.classify(each, k=1, timeout=10)) for each in requests]
        await asyncio.sleep(0)
        device.go.set()
        answers = await asyncio.gather(*waiting)
        await busy
        errors = [[each.error and each.error.code for each in answer.results] for answer in answers]
        assert errors == [[None, "internal"], [None], ["internal"], [None]]
        assert {each.label for answer in answers for result in answer.results for each in result.top_k} == {"dog"}
        assert device.computed == 4

    with_pipeline(manifest, test, images=6, makes=makes, read=read)


@pytest.mark.parametrize("makes", [False, True])
def test_decoding_waiting_and_computing_are_nearly_all_of_a_requests_time(manifest: Manifest, makes: bool) -> None:
    """Eight images that one thread decodes one after the other: most of the time each waits for the others."""
    plain = reader(manifest.preprocessing, max_pixels=10_000, exact=True)

    def slowly(data: bytes | memoryview) -> tuple[npt.NDArray[np.uint8], tuple[ImageWarning, ...]]:
        time.sleep(0.05)  # the work itself
        return plain(data)

    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        for images in ([picture(seed) for seed in range(8)], [b"no image"] * 8):
            took = (await pipeline.classify(images, k=1, timeout=10)).timings_ms
            stages = took.decode + took.queue + took.compute
            assert took.decode >= 50
            assert took.queue >= 350
            assert 0.75 * took.total <= stages <= took.total + 0.002  # each is rounded

    with_pipeline(manifest, test, images=8, makes=makes, read=slowly)


def test_a_small_file_with_many_pixels_holds_up_nobody(manifest: Manifest) -> None:
    file = BytesIO()
    Image.new("1", (6000, 6000)).save(file, "PNG")
    flat, answered = file.getvalue(), threading.Event()
    plain = reader(manifest.preprocessing, max_pixels=10_000, exact=True)
    assert len(flat) < 50_000

    def read(data: bytes | memoryview) -> tuple[npt.NDArray[np.uint8], tuple[ImageWarning, ...]]:
        if data == flat:
            assert answered.wait(timeout=10)
        return plain(data)

    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        slow = asyncio.create_task(pipeline.classify([flat], k=1, timeout=15))
        await asyncio.sleep(0)
        small = await pipeline.classify([picture()], k=1, timeout=5)
        await pipeline.ping(timeout=5)
        assert small.results[0].error is None
        assert not slow.done()
        answered.set()
        (result,) = (await slow).results
        assert result.error is not None
        assert result.error.code == "image_too_large"

    with_pipeline(manifest, test, makes=True, read=read)


@pytest.mark.parametrize(
    ("form", "side", "is_cheap"),
    [
        ("PNG", 1024, True),
        ("PNG", 1025, False),
        ("JPEG", 3162, True),
        ("JPEG", 3163, False),
        ("progressive", 900, True),
        ("progressive", 1500, False),
        ("WEBP", 8, False),
        ("GIF", 8, False),
    ],
)
def test_only_what_is_soon_decoded_for_certain_is_cheap(form: str, side: int, is_cheap: bool) -> None:
    file = BytesIO()
    if form == "progressive":
        Image.new("RGB", (side, side)).save(file, "JPEG", progressive=True)
    else:
        Image.new("L", (side, side)).save(file, form)
    assert cheap(memoryview(file.getvalue())) is is_cheap
    assert not cheap(b"")


def test_a_jpeg_with_many_scans_or_markers_that_lead_nowhere_is_not_cheap() -> None:
    file = BytesIO()
    Image.new("RGB", (500, 375)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    assert cheap(whole)
    last = whole.rindex(b"\xff\xda")
    assert not cheap(whole[:-2] + whole[last:-2] * 60 + whole[-2:])
    for head in (whole[:2], whole[:100], whole[:2] + b"\xff" * 100_000, whole[:2] + b"\xff\xe1\x00\x02" * 1000):
        assert not cheap(head)


def test_more_images_than_the_engine_may_hold_are_refused_at_once(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        held = asyncio.create_task(pipeline.classify([picture()] * 3, k=1, timeout=10))
        await asyncio.to_thread(device.started.acquire)
        with pytest.raises(Overloaded, match="3 images wait already; at most 4"):
            await pipeline.classify([picture()] * 2, k=1, timeout=10)
        fits = asyncio.create_task(pipeline.classify([picture()], k=1, timeout=10))
        device.go.set()
        await asyncio.gather(held, fits)
        assert pipeline.images == 0
        assert len((await pipeline.classify([picture()] * 4, k=1, timeout=10)).results) == 4

    with_pipeline(manifest, test)


def test_a_request_larger_than_the_limit_is_served_when_nothing_else_is_there(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        assert len((await pipeline.classify([picture()] * 9, k=1, timeout=10)).results) == 9

    with_pipeline(manifest, test)


def test_a_request_ends_at_its_deadline_and_leaves_room(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        with pytest.raises(TimeoutError):
            await pipeline.classify([picture()] * 4, k=1, timeout=0.05)
        assert pipeline.images == 0

    with_pipeline(manifest, test)


def test_a_cancelled_request_is_not_computed(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        busy = asyncio.create_task(pipeline.classify([picture()], k=1, timeout=10))
        await asyncio.to_thread(device.started.acquire)
        gone = asyncio.create_task(pipeline.classify([picture()] * 3, k=1, timeout=10))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert pipeline.images == 1
        device.go.set()
        await busy
        await pipeline.ping(timeout=10)
        assert device.computed == 2  # the first request's image and the ping's

    with_pipeline(manifest, test)


@pytest.mark.parametrize("files", [False, True])
def test_a_request_over_which_the_device_failed_leaves_nothing_behind_to_be_computed(
    manifest: Manifest, files: bool
) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        failed = False

        def failing(images: npt.NDArray[np.uint8]) -> Outputs:
            nonlocal failed
            if not failed:
                failed = True
                raise RuntimeError("out of memory")
            return device(images)

        async def four() -> object:
            if files:
                return await pipeline.classify([picture()] * 4, k=1, timeout=10)
            shape, kind, outputs = [4, 32, 32, 3], TensorInput.PIXELS, [Output.LOGITS]
            return await pipeline.infer(bytes(4 * 32 * 32 * 3), kind=kind, shape=shape, outputs=outputs, timeout=10)

        pipeline._batcher.use(Computing(wide=failing, max_batch=1, makes=True))
        with pytest.raises(ComputeFailed):
            await four()
        assert pipeline.images == 0
        device.go.set()
        await pipeline.ping(timeout=10)
        assert device.computed <= 2  # the ping's, and one that the device may have had in hand

    with_pipeline(manifest, test)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_probability_that_is_not_finite_never_leaves(manifest: Manifest, value: float) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        device.row = np.array([0.2, value, 0.3], dtype=np.float32)
        device.go.set()
        (result,) = (await pipeline.classify([picture()], k=3, timeout=10)).results
        assert result.error is not None
        assert result.error.code == "internal"
        assert result.top_k == ()
        with pytest.raises(ValueError, match="not a finite number"):
            await pipeline.ping(timeout=10)

    with_pipeline(manifest, test)


def test_top_k_is_sorted_stable_and_clamped_to_the_classes() -> None:
    row = np.array([0.25, 0.5, 0.25])
    assert [(each.class_index, each.probability) for each in top_k(row, CLASSES, k=99)] == [
        (1, 0.5),
        (0, 0.25),
        (2, 0.25),
    ]
    assert [each.label for each in top_k(row, CLASSES, k=1)] == ["dog"]


@pytest.mark.parametrize("k", [1, 5, 999, 1000, 2000])
@pytest.mark.parametrize("values", [3, 1_000_000])  # few: nearly all classes are equally likely
def test_of_many_classes_the_likeliest_come_as_if_all_were_put_in_order(k: int, values: int) -> None:
    row = np.random.default_rng(0).integers(values, size=1000) / values
    ordered = sorted(range(1000), key=lambda index: -row[index])  # which leaves equal ones as they are
    labels = top_k(row, [str(index) for index in range(1000)], k=k)
    assert [(each.label, each.class_index, each.probability) for each in labels] == [
        (str(index), index, row[index]) for index in ordered[:k]
    ]


@pytest.mark.parametrize(("images", "few"), [(3, True), (4, False)])
def test_where_labels_are_many_they_are_not_made_on_the_event_loop(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, images: int, few: bool
) -> None:
    monkeypatch.setattr(pipeline_module, "FEW_LABELS", 9)
    here = []

    def noted(*arguments: Any, **options: Any) -> tuple[Label, ...]:
        here.append(threading.current_thread() is threading.main_thread())
        return top_k(*arguments, **options)

    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        answer = await pipeline.classify([picture()] * images, k=50, timeout=10)
        assert [[each.label for each in result.top_k] for result in answer.results] == [["dog", "ship", "cat"]] * images

    monkeypatch.setattr(pipeline_module, "top_k", noted)
    with_pipeline(manifest, test)
    assert here == [few] * images


def tensors(answer: ClassifyAnswer | InferAnswer) -> dict[Output, npt.NDArray[np.float32]]:
    return {
        head.name: np.frombuffer(data, "<f4").reshape(head.shape)
        for head, data in zip(answer.tensors, answer.payload, strict=True)
    }


def test_what_was_asked_of_the_forward_pass_comes_for_the_images_that_went_through_it(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        images = [picture(1), b"no image", picture(2)]
        answer = await pipeline.classify(images, k=1, outputs=list(Output), timeout=10)
        found = tensors(answer)
        assert list(found) == list(Output)
        np.testing.assert_array_equal(found[Output.LOGITS], np.tile(device.row, (2, 1)))
        np.testing.assert_allclose(found[Output.PROBABILITIES], [[0.2, 0.5, 0.3]] * 2, rtol=1e-6)
        corners = [np.asarray(Image.open(BytesIO(images[i])))[0, 0] for i in (0, 2)]
        np.testing.assert_array_equal(found[Output.EMBEDDING], corners)
        assert "payload" not in answer.model_dump()
        assert (await pipeline.classify(images, k=1, timeout=10)).payload == ()

    with_pipeline(manifest, test)


def test_calibrated_probabilities_are_those_of_the_models_temperature(manifest: Manifest) -> None:
    calibrated = manifest.model_copy(update={"calibration": Calibration(temperature=2.0)})

    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        answer = await pipeline.classify([picture()], k=3, outputs=[Output.PROBABILITIES], timeout=10)
        softened = np.sqrt([0.2, 0.5, 0.3])
        softened /= softened.sum()
        np.testing.assert_allclose(tensors(answer)[Output.PROBABILITIES][0], softened, rtol=1e-6)
        np.testing.assert_allclose([each.probability for each in answer.results[0].top_k], sorted(softened)[::-1])

    with_pipeline(calibrated, test)


def test_pixels_of_a_client_go_to_the_device_and_wrong_shapes_do_not(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)

        async def infer(shape: list[int], data: bytes) -> InferAnswer:
            kind = TensorInput.PIXELS
            return await pipeline.infer(data, kind=kind, shape=shape, outputs=[Output.EMBEDDING], timeout=10)

        found = tensors(await infer([3, 32, 32, 3], pixels.tobytes()))
        np.testing.assert_array_equal(found[Output.EMBEDDING], pixels[:, 0, 0])
        for shape in ([3, 3, 32, 32], [0, 32, 32, 3], [3, 3072], [2, 32, 32, 3]):
            with pytest.raises(Refused):
                await infer(shape, pixels.tobytes())
        device.row = np.array([0.0, np.nan, 0.0], dtype=np.float32)
        with pytest.raises(ValueError, match="not a finite number"):
            await infer([3, 32, 32, 3], pixels.tobytes())
        assert pipeline.images == 0

    with_pipeline(manifest, test)


def test_batches_of_every_kind_are_counted_and_pings_are_not(artifacts: list[Path]) -> None:
    runtime = load(artifacts[0], "cpu")

    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        for _ in range(3):
            await pipeline.ping(timeout=10)
        assert pipeline.batches == {}
        await pipeline.classify([picture()], k=1, timeout=10)
        assert pipeline.batches == {1: 1}
        shape, kind = [4, 3, 32, 32], TensorInput.NORMALISED
        data = np.zeros(shape, np.float32).tobytes()
        for _ in range(2):
            await pipeline.infer(data, kind=kind, shape=shape, outputs=[Output.LOGITS], timeout=10)
        assert pipeline.batches == {1: 1, 4: 2}
        assert device.computed == 4  # the pings' and the file's: what is normalised is the float32 network's

    with_pipeline(runtime.manifest, test, reference=lambda: runtime)


def test_preprocess_shows_what_the_device_gets_to_the_bit(manifest: Manifest) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        file = BytesIO()
        Image.open(BytesIO(picture(3, size=100))).convert("L").save(file, "PNG")
        images = [picture(1), b"no image", file.getvalue()]
        shown = await pipeline.preprocess(images, timeout=10)
        assert [each.error and each.error.code for each in shown.results] == [None, "unsupported_format", None]
        assert [each.code for each in shown.results[2].warnings] == ["converted_to_rgb"]
        read = reader(manifest.preprocessing, max_pixels=10_000, exact=True)
        for result, png, image in zip(shown.results, shown.payload, images, strict=True):
            assert result.png == len(png)
            if result.error is None:
                pixels, _ = read(image)
                np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png))), pixels)
                assert result.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
                assert result.shape == (32, 32, 3)
        assert device.computed == 0

    with_pipeline(manifest, test)


def test_explain_loads_the_float32_network_once_when_it_is_first_asked(artifacts: list[Path]) -> None:
    runtime = load(artifacts[0], "cpu")
    loaded = 0

    def reference() -> Runtime:
        nonlocal loaded
        loaded += 1
        return runtime

    async def test(pipeline: Pipeline, device: Device) -> None:
        assert loaded == 0
        images = [picture(1), b"no image", picture(2)]
        for class_index in (None, 2):
            shown = await pipeline.explain(images, class_index=class_index, with_overlay=True, timeout=10)
            assert [each.error and each.error.code for each in shown.results] == [None, "unsupported_format", None]
            assert [len(png) for png in shown.payload] == [each.png for each in shown.results]
            rows = runtime.logits(np.stack([np.array(Image.open(BytesIO(images[i]))) for i in (0, 2)]))
            for row, result in zip(probabilities(rows, runtime.manifest), shown.results[::2], strict=True):
                assert result.label is not None
                index = int(row.argmax()) if class_index is None else class_index
                assert (result.label.class_index, result.label.label) == (index, CLASSES[index])
                assert result.label.probability == pytest.approx(row[index], abs=1e-5)
                assert np.shape(result.heatmap) == (8, 8)
        bare = await pipeline.explain(images, class_index=0, with_overlay=False, timeout=10)
        assert bare.payload == (b"",) * 3
        took = bare.timings_ms
        assert took.compute > 0
        with pytest.raises(Refused, match="0 to 2"):
            await pipeline.explain(images, class_index=3, with_overlay=False, timeout=10)
        assert loaded == 1
        assert device.computed == 0

    with_pipeline(runtime.manifest, test, reference=reference)


def test_who_asks_for_many_explanations_takes_no_place_from_who_is_classified(artifacts: list[Path]) -> None:
    runtime, go = load(artifacts[0], "cpu"), threading.Event()

    def reference() -> Runtime:
        assert go.wait(timeout=20)
        return runtime

    async def test(pipeline: Pipeline, device: Device) -> None:
        device.go.set()
        many = asyncio.create_task(pipeline.explain([picture()] * 16, class_index=0, with_overlay=False, timeout=20))
        shown = await pipeline.preprocess([picture()], timeout=10)
        assert shown.results[0].error is None
        with pytest.raises(Overloaded, match="16 images wait already; at most 2 may"):
            await pipeline.explain([picture()], class_index=0, with_overlay=False, timeout=10)
        assert pipeline.images == 16
        answer = await pipeline.classify([picture(seed) for seed in range(16)], k=1, timeout=10)
        assert len(answer.results) == device.computed == 16
        go.set()
        assert len((await many).results) == 16

    with_pipeline(runtime.manifest, test, images=16, reference=reference)
