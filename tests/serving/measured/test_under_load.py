"""The soak's scenarios in their small form, on one real engine behind two HTTP processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from serving_toys import FleetProcess, picture

from benchmarks.soak import aborts
from benchmarks.soak.drains import Balancer
from benchmarks.soak.http_load import Address, Answer, Connection, OpenLoop, closed_loop, get, put
from benchmarks.soak.measures import Use, leaks, percentile
from benchmarks.soak.service import free_port
from benchmarks.soak.waiting import until, until_it_says
from store.layout import Layout

IMAGE = picture(1)


@dataclass
class Instance:
    """One `python -m app` on an address of its own."""

    address: Address
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory, artifacts: list[Path]) -> Iterator[list[Instance]]:
    layout = Layout(tmp_path_factory.mktemp("load") / "data").create()
    FleetProcess.publish_default(layout, artifacts[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_MAX_WAITING_IMAGES", "2000")
        fleet = FleetProcess(layout)
    with ExitStack() as stack:
        stack.callback(fleet.stop)
        started = []
        for _ in range(2):
            port = free_port()
            environment = {
                **os.environ,
                "RESNETD_DATA": str(layout.root),
                "RESNETD_MODEL": "toy",
                "RESNETD_PORT": str(port),
                "RESNETD_DRAIN_DELAY_SECONDS": "1",
                "RESNETD_MAX_REQUESTS": "300",
            }
            process = subprocess.Popen([sys.executable, "-m", "app"], env=environment, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(Instance(("127.0.0.1", port), process))
        fleet.ready("toy", 1)
        yield started


async def is_ready(address: Address) -> None:
    connection = Connection(address)

    async def look() -> bool:
        return (await connection.ask(get("/readyz"))).status == 200

    await until_it_says(look)
    connection.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_uploads_that_are_aborted_in_the_queue_never_reach_the_network(instances: list[Instance]) -> None:
    async def main() -> None:
        address = instances[0].address
        await is_ready(address)
        figures = await aborts.measure(address, IMAGE, aborts=100)
        assert figures["images_answered_beside_them"] == 512
        assert figures["share_that_never_reached_the_network"] >= 0.99, figures

    run(main())


def test_a_crowd_is_answered_or_refused_and_memory_holds_no_more_than_it_may(instances: list[Instance]) -> None:
    async def main() -> None:
        address = instances[0].address
        await is_ready(address)
        answers = await OpenLoop(address, [put("/v1/classify", IMAGE)], rate=2000, seconds=0.5).run()
        assert len(answers) == 1000
        assert {answer.status for answer in answers} <= {200, 503}
        assert sum(answer.status == 200 for answer in answers) >= 300

    run(main())


def test_a_sigterm_behind_a_load_balancer_fails_no_request(instances: list[Instance]) -> None:
    async def main() -> None:
        for instance in instances:
            await is_ready(instance.address)
        balancer = Balancer([instance.address for instance in instances], clients=4)
        watching = asyncio.create_task(balancer.watch())
        await until(lambda: all(balancer.ready.values()))
        answers: list[Answer] = []

        async def ask(number: int) -> None:
            answers.append(await balancer.ask(number, put("/v1/classify", IMAGE)))

        leaving = instances[0].process
        loading = asyncio.create_task(closed_loop(ask, clients=4, going=lambda: leaving.poll() is None))
        await until(lambda: len(answers) >= 20)
        leaving.send_signal(signal.SIGTERM)
        await loading
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        balancer.close()
        assert leaving.returncode == 0
        assert {answer.status for answer in answers} == {200}, {answer.reason for answer in answers}
        assert len(answers) > 40

    run(main())


def test_a_leak_is_told_by_memory_descriptors_and_threads() -> None:
    early = Use(pss=200_000_000, own=100_000_000, fds=40, threads=12)
    assert leaks(early, replace(early, own=101_000_000, fds=39)) == []
    assert "memory grew by 3.0 MB" in leaks(early, replace(early, own=103_000_000))[0]  # more than a hundredth
    large = replace(early, pss=2_000_000_000)
    assert leaks(large, replace(large, own=107_000_000)) == []
    assert leaks(large, replace(large, own=109_000_000)) != []  # more than 8 MB
    assert leaks(early, replace(early, fds=48, threads=20)) == []  # pools that were not full yet
    assert leaks(early, replace(early, fds=49, threads=21)) == [
        "file descriptors grew from 40 to 49",
        "threads grew from 12 to 21",
    ]


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.67, 0.99)] == [1.0, 2.0, 3.0, 3.0]
