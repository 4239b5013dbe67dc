"""Uploads whose client goes away while they are in the queue: their images never reach the network."""

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.soak.http_load import Address, Connection, put
from benchmarks.soak.service import Service

_WAVE = 200  # aborted at a time
_AHEAD = 256  # images of the request that they wait behind
_MOST_COMPUTED = 0.01
_PING_SECONDS = 2.0  # between the fleet's looks at an engine, each of which computes an image


async def run(folder: Path, image: bytes, *, aborts: int) -> dict[str, Any]:
    """Waves of requests that queue up behind two large ones, and are aborted while these are being decoded."""
    async with Service(folder / "aborts", max_waiting_images="4000").running() as service:
        return await measure(service.address, image, aborts=aborts)


async def measure(address: Address, image: bytes, *, aborts: int) -> dict[str, Any]:
    """On a server with one model, whose engine holds more than 1,000 images."""
    one, many = put("/v1/classify", image), _form(_slow(), _AHEAD)
    large = [Connection(address) for _ in range(2)]
    began, before = time.perf_counter(), await _computed(address)
    done = good = looks = 0
    while done < aborts:
        size = min(_WAVE, aborts - done)
        streams = await asyncio.gather(*(asyncio.open_connection(*address) for _ in range(size)))
        ahead = [asyncio.create_task(connection.ask(many)) for connection in large]
        while await _waiting(address) < 2 * _AHEAD:  # both are in the engine
            looks += 1
        looks += 1
        for _, writer in streams:
            writer.write(one)
        await asyncio.gather(*(writer.drain() for _, writer in streams))
        while await _waiting(address) < _AHEAD + size // 2 and not all(task.done() for task in ahead):
            looks += 1  # most of the wave is in the engine, too
        looks += 1
        for _, writer in streams:
            writer.transport.abort()
        answers = await asyncio.gather(*ahead)
        good += _AHEAD * sum(answer.status == 200 for answer in answers)
        done += size
    for connection in large:
        connection.close()
    pings = looks + 2 + int((time.perf_counter() - began) / _PING_SECONDS)
    computed = max(await _computed(address) - before - good - pings, 0)
    return {
        "passed": computed <= _MOST_COMPUTED * aborts and good > 0,
        "aborted": aborts,
        "images_answered_beside_them": good,
        "aborted_but_computed": computed,
        "share_that_never_reached_the_network": round(1 - computed / aborts, 4),
    }


def _slow() -> bytes:
    """A small file that takes milliseconds to decode: who waits behind many of them still waits when he is aborted."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((500, 500)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _form(image: bytes, count: int) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n' + image + b"\r\n"
    return put("/v1/classify", part * count + b"--x--\r\n", Content_Type="multipart/form-data; boundary=x")


async def _told(address: Address, name: str) -> int:
    """A figure of the one engine, from /metrics; asking for it computes an image."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        text = (await client.get(f"http://{address[0]}:{address[1]}/metrics")).text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return int(next((each.value for each in samples if each.name == name), 0))


async def _computed(address: Address) -> int:
    return await _told(address, "inference_batch_size_sum")


async def _waiting(address: Address) -> int:
    return await _told(address, "inference_queue_depth")
