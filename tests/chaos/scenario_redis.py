"""Redis killed, stopped, cut off and away for long, while jobs run and are asked for."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from checker import Limits
from clients import training
from history import read
from proxy import Proxy
from scene import Report, Scene, scene, share, side_by_side
from stack import Stack, strike

FAIL_FAST_SECONDS = 1.0
_MARGIN = 0.5  # of our own client and of a crowded core


async def redis_restarts(folder: Path, *, seed: int, times: int, stacks: int) -> Report:
    """Redis is killed and comes back; then a canary."""

    async def restart(it: Scene, number: int) -> None:
        strike(it.stack.pid("redis"))
        it.report.counts["redis_kills"] += 1
        await it.canary(f"restart {number}")

    return await _again_and_again(restart, folder, seed=seed, times=times, stacks=stacks)


async def redis_pauses(
    folder: Path, *, seed: int, times: int, seconds: float, stacks: int, slack: float = 1.0
) -> Report:
    """Redis is stopped for `seconds`; meanwhile job calls fail fast; then a canary."""

    async def pause(it: Scene, number: int) -> None:
        pid = it.stack.pid("redis")
        strike(pid, signal.SIGSTOP)
        it.report.counts["redis_pauses"] += 1
        await _fails_fast(it, until=time.monotonic() + seconds, slack=slack)
        strike(pid, signal.SIGCONT)
        await it.canary(f"pause {number}")

    return await _again_and_again(pause, folder, seed=seed, times=times, stacks=stacks)


async def _again_and_again(
    hurt: Callable[[Scene, int], Awaitable[None]], folder: Path, *, seed: int, times: int, stacks: int
) -> Report:
    """`hurt(scene, number)`, `times` in all, each at some moment of a job's beginning."""
    shares = share(times, stacks)

    async def one(place: Path, n: int) -> Report:
        chance = random.Random(seed + n)
        async with scene(place) as it:
            for number in range(shares[n]):
                await _background_job(it, number)
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                await hurt(it, number)
            await _conclude(it)
        return it.report

    return await side_by_side(folder, stacks, one)


async def half_open(folder: Path, *, seed: int, times: int, seconds: tuple[float, float], slack: float = 1.0) -> Report:
    """One link after the other falls silent without a word, and stays so for those who were on it; then a canary.

    `times` for each of API↔Redis, worker↔Redis and client↔API: a stack for each, side by side.
    """
    links = ("api", "worker", "client")

    async def one(place: Path, n: int) -> Report:
        link, chance = links[n], random.Random(seed + n)
        proxy = Proxy(Stack.redis_in(place / "stack"), seed=seed + n).start()
        try:
            url = Stack.redis_url_by(proxy.port, place / "stack")
            options = {"api_redis": url} if link == "api" else {"worker_redis": url} if link == "worker" else {}
            async with scene(place, **options) as it:
                if link == "client":
                    proxy.point_at(("127.0.0.1", it.stack.port))
                    it.client.move_to(f"http://127.0.0.1:{proxy.port}")
                for number in range(times):
                    await _background_job(it, number)
                    await asyncio.sleep(chance.uniform(0.0, 0.5))
                    proxy.silence()
                    it.report.counts[f"half_open_{link}"] += 1
                    until = time.monotonic() + chance.uniform(*seconds)
                    if link == "api":
                        await _fails_fast(it, until=until, slack=slack)
                    await asyncio.sleep(max(0.0, until - time.monotonic()))
                    proxy.restore()
                    await it.canary(f"{link} {number}")
                await _conclude(it)
            return it.report
        finally:
            proxy.stop()

    return await side_by_side(folder, len(links), one)


async def lost_replies(folder: Path, *, seed: int, jobs: int, chance: float) -> Report:
    """Answers of Redis get lost after it has done what was asked, on both links: everything is tried again blindly."""
    proxies = [Proxy(Stack.redis_in(folder / "stack"), seed=seed + n).start() for n in range(2)]
    try:
        api, worker = (Stack.redis_url_by(proxy.port, folder / "stack") for proxy in proxies)
        async with scene(folder, api_redis=api, worker_redis=worker) as it:
            for proxy in proxies:
                proxy.lose_replies = chance
            accepted = []
            for number in range(jobs):
                job = await it.client.submit(training(seed=number, epochs=3, model=f"m{number // 20}"))
                accepted += [job] if job else []
                if job and number % 5 == 0:
                    await it.client.verb(job, "cancel")
            await it.settle(accepted)
            for proxy in proxies:
                proxy.lose_replies = 0.0
            await it.conclude()
        it.report.counts["replies_lost"] = sum(proxy.lost_replies for proxy in proxies)
        return it.report
    finally:
        for proxy in proxies:
            proxy.stop()


async def ack_then_kill(folder: Path, *, seed: int, times: int, stacks: int) -> Report:
    """Redis is killed as soon as a 202 has come: what was acknowledged is there when it is back."""
    shares = share(times, stacks)

    async def one(place: Path, n: int) -> Report:
        async with scene(place) as it:
            accepted = []
            for number in range(shares[n]):
                job = await it.client.submit(training(seed=number, epochs=1, steps=2))
                strike(it.stack.pid("redis"))
                it.report.counts["redis_kills"] += 1
                accepted += [job] if job else []
                found = await it.client.get(str(job))
                it.report.counts["lost"] += found["id"] != job
            await it.settle(accepted, seconds=1200.0)
            await it.conclude()
        return it.report

    return await side_by_side(folder, stacks, one)


async def outage(folder: Path, *, seed: int, seconds: float, slack: float = 1.0) -> Report:
    """Redis is away for longer than any lease: a running job works on, under the claim that it has, and succeeds."""
    async with scene(folder) as it:
        steps = round((1.1 * seconds + 3.0) / 0.02)
        job = await it.client.submit(training(seed=seed, epochs=10, steps=max(1, steps // 10), step_seconds=0.02))
        assert job is not None
        await it.running(job)
        redis = it.stack.part("redis")
        redis.held = True
        strike(it.stack.pid("redis"))
        away = time.time() * 1000
        await _fails_fast(it, until=time.monotonic() + seconds, slack=slack)
        back = time.time() * 1000
        redis.held = False
        await it.settle([job], seconds=seconds + 120.0)  # it has the device: a canary could only wait behind it
        await it.canary("outage")
        record = await it.client.get(job)
        meanwhile = [line for line in read(it.stack.ran) if line["job"] == job and away < line["t"] < back]
        it.report.counts.update({"outage_s": round((back - away) / 1000), "steps_run_in_outage": len(meanwhile)})
        if record["state"] != "succeeded" or record["attempts"] != 1 or not meanwhile:
            it.report.violate(f"outage: the job is {record['state']} under claim {record['attempts']}")
        await it.conclude(Limits(stuck_ms=(seconds + 90.0) * 1000))
    return it.report


async def _background_job(it: Scene, number: int) -> None:
    """Something that runs while the link suffers."""
    await it.client.submit(training(seed=number, epochs=5, steps=50, model=f"m{number // 20}"))


async def _fails_fast(it: Scene, *, until: float, slack: float) -> None:
    """While Redis does not answer, job calls say 503 with Retry-After within a second, and the process is well."""
    async with httpx.AsyncClient(base_url=it.stack.url, timeout=20.0, trust_env=False) as http:
        await asyncio.sleep(min(0.5, max(0.0, until - time.monotonic())))
        while time.monotonic() < until:
            began = time.monotonic()
            answer = await http.get("/v1/jobs")
            took = time.monotonic() - began
            it.report.sample("refusal_s", took)
            told = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in answer.headers
            if not told or took > (FAIL_FAST_SECONDS + _MARGIN) * slack:
                it.report.violate(f"redis away: GET /v1/jobs answered {answer.status_code} after {took:.2f} s")
            if (await http.get("/livez")).status_code != httpx.codes.OK:
                it.report.violate("redis away: the HTTP process is not alive")
            await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))


async def _conclude(it: Scene) -> None:
    listed = await it.client.pages("/v1/jobs")
    await it.settle([job["id"] for job in listed])
    await it.conclude()
