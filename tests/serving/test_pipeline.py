"""A request's way through the engine, with a device that the test holds in its hand."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import numpy.typing as npt
import pytest
from serving_toys import CLASSES, make_artifact, picture

from app.engine.batch import Batcher
from app.engine.pipeline import Limits, Overloaded, Pipeline
from app.engine.ranking import top_k
from models.manifest import Manifest


class Device:
    """Gives every image the same probabilities, once it is let go."""

    def __init__(self) -> None:
        self.row = np.array([0.2, 0.5, 0.3])
        self.computed = 0
        self.started = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        self.started.release()
        assert self.go.wait(timeout=20)
        self.computed += len(images)
        return np.tile(self.row, (len(images), 1))


@pytest.fixture
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.read(make_artifact(tmp_path_factory.mktemp("toy") / "model", job="job_a", network=False))


def with_pipeline(manifest: Manifest, test: Callable[[Pipeline, Device], Awaitable[None]], *, images: int = 4) -> None:
    async def main() -> None:
        device = Device()
        batcher = Batcher(device)
        limits = Limits(images=images, bytes=1_000_000, pixels_per_image=10_000)
        pipeline = Pipeline(manifest, batcher, limits=limits, decode_threads=1)
        running = asyncio.create_task(batcher.run())
        try:
            async with asyncio.timeout(20):
                await test(pipeline, device)
        finally:
            device.go.set()
            running.cancel()

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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_probability_that_is_not_finite_never_leaves(manifest: Manifest, value: float) -> None:
    async def test(pipeline: Pipeline, device: Device) -> None:
        device.row = np.array([0.2, value, 0.3])
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
