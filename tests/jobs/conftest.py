import pytest
from redis import Redis

from jobs.ledger import Ledger
from store.layout import Layout


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "data").create()
