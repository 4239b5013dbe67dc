"""One job for everything that can be asked of a job, so that every fault point is passed; each to its end."""

import asyncio
import contextlib
import io
import random
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

from clients import TERMINAL, training
from PIL import Image
from scene import Scene
from stack import children, strike

ENDED_SECONDS = 240.0
Errand = Callable[[Scene, random.Random], Awaitable[None]]


async def plain(it: Scene, chance: random.Random) -> None:
    await _ended(it, await _asked(it, chance, model="plain", alias="production"))


async def followed(it: Scene, chance: random.Random) -> None:
    """Watched from beginning to end, with a webhook on top."""
    job = await _asked(it, chance, epochs=12, webhook=True)
    await it.client.watch(job, seconds=ENDED_SECONDS)


async def cancelled(it: Scene, chance: random.Random) -> None:
    """At a random moment, queued or running; then tried again; then forgotten."""
    job = await _asked(it, chance)
    await asyncio.sleep(chance.uniform(0.0, 1.5))
    await it.client.verb(job, "cancel")
    await _ended(it, job)
    answer = await it.client.verb(job, "retry")
    if "id" in answer.body and answer.body["id"] != job:
        await _ended(it, str(answer.body["id"]))
        await it.client.delete(job)


async def paused(it: Scene, chance: random.Random) -> None:
    job = await _asked(it, chance, epochs=8)
    for _ in range(2):
        await asyncio.sleep(chance.uniform(0.0, 0.8))
        await it.client.verb(job, "pause")
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        await it.client.verb(job, "resume")
    await _ended(it, job, verb="resume")


async def ordered(it: Scene, chance: random.Random) -> None:
    """A checkpoint now, other settings, and an end before its time."""
    job = await _asked(it, chance, epochs=1000, model="ordered")
    await _progressed(it, job)  # before its first step there is nothing to keep
    await it.client.verb(job, "checkpoint")
    await it.client.patch(job, {"epochs": 900, "priority": "high"})
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    await it.client.verb(job, "finish")
    await _ended(it, job)


async def bereaved(it: Scene, chance: random.Random) -> None:
    """Its supervisor is killed."""
    job = await _asked(it, chance, epochs=20)
    await _progressed(it, job)
    for part in it.stack.parts:
        for pool in it.stack.pool(part.name) if part.name.startswith("worker") else []:
            if any(it.stack.trainers().get(pid) == job for pid in children(pool)):
                strike(pool)
    await _ended(it, job)


async def imported(it: Scene, chance: random.Random) -> None:
    """A dataset, by the real importer."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for label in ("a", "b"):
            for number in range(3):
                picture = io.BytesIO()
                Image.new("L", (8, 8), chance.randrange(256)).save(picture, "PNG")
                file.writestr(f"train/{label}/{number}.png", picture.getvalue())
    job = await it.client.upload(archive.getvalue(), name=f"d{uuid4().hex[:8]}")
    if job is not None:
        await _ended(it, job)


ERRANDS: tuple[Errand, ...] = (plain, followed, cancelled, paused, ordered, bereaved, imported)


@contextlib.asynccontextmanager
async def webhook_receiver() -> AsyncIterator[str]:
    """A server that answers every delivery with 200; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


async def _asked(
    it: Scene,
    chance: random.Random,
    *,
    epochs: int = 4,
    model: str | None = None,
    alias: str | None = None,
    webhook: bool = False,
) -> str:
    asked = training(seed=chance.randrange(2**31), epochs=epochs, steps=20, model=model)
    if alias is not None:
        asked["alias"] = alias
    if webhook and it.webhook:
        asked["webhook"] = {"url": it.webhook}
    job = await it.client.submit(asked, seconds=ENDED_SECONDS)
    if job is None:
        raise LookupError("a submission was not answered")
    return job


async def _progressed(it: Scene, job: str) -> None:
    """Wait until the job has told of a step or has ended."""
    async with asyncio.timeout(ENDED_SECONDS):
        while True:
            found = await it.client.get(job)
            if found["progress"] or found["state"] in TERMINAL:
                return
            await asyncio.sleep(0.05)


async def _ended(it: Scene, job: str, *, verb: str | None = None) -> None:
    """Wait for the end; `verb` is said again meanwhile, for a job that waits for it."""
    for _ in range(int(ENDED_SECONDS / 10)):
        if await it.client.wait(job, seconds=10.0) is not None:
            return
        if verb is not None:
            await it.client.verb(job, verb)
