from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from edge_kit import Server, dataset_on_disk, let_go, own_redis, serving

from jobs.ledger import Ledger
from jobs.model import JobError, Lane
from jobs.redis import connect
from store import redis_account
from store.layout import Layout
from store.settings import Settings


@pytest.fixture(scope="session")
def redis_layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    layout = Layout(tmp_path_factory.mktemp("http") / "data").create()
    with own_redis(layout):
        yield layout


@pytest.fixture(scope="session")
def settings(redis_layout: Layout) -> Settings:
    return Settings(
        data=redis_layout.root,
        redis_url=redis_account.url(redis_layout),
        max_image_bytes=200_000,
        max_request_bytes=1_000_000,
        max_images_per_request=8,
        max_dataset_bytes=5_000_000,
    )


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    with serving(settings) as running:
        yield running


@pytest.fixture
def http(server: Server) -> httpx.Client:
    return server.http


@pytest.fixture(scope="session")
def ledger(settings: Settings) -> Iterator[Ledger]:
    redis = connect(str(settings.redis_url))
    yield Ledger(redis)
    redis.close()


@pytest.fixture
def alone(tmp_path: Path, settings: Settings) -> Settings:
    """Settings for a data directory of the test's own, with the shared Redis."""
    return settings.model_copy(update={"data": tmp_path / "data"})


@pytest.fixture
def dataset(server: Server) -> str:
    """An imported dataset."""
    return dataset_on_disk(server.layout, f"ds_{uuid4().hex}")


@pytest.fixture(autouse=True)
def nothing_stays_claimed() -> Iterator[None]:
    yield
    let_go()


@pytest.fixture
def idle(ledger: Ledger) -> Ledger:
    """The ledger with an empty device lane."""
    while (claim := ledger.claim(Lane.DEVICE, owner="test", token=uuid4().hex)) is not None:
        ledger.fail(claim, JobError(code="swept", message="by the next test"))
    return ledger
