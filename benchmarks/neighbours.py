"""Corrupt images beside good ones change nothing: what is said of an image does not depend on what came with it.

`python -m benchmarks.neighbours [--batches 10000] [--precisions exact,bf16]`

A running `resnetd serve` with the starter cifar10-resnet20 is first asked about each image alone. Then come requests of
2 to 32 images, as forms and as JSON, 1 to 50 % of each corrupt, from several clients at once, so that batches mix them.
Each good image must have the probabilities of its answer alone, within what the precision allows (0.001 for `exact`,
0.02 for `bf16`); each corrupt one its own error, the same as alone. How many good ones keep their top class is told:
the pictures resemble nothing, so that their likeliest classes are often near each other. The last line is one JSON
object (`--record FILE`: also there).
"""

import argparse
import asyncio
import base64
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvloop

from benchmarks.origin import origin
from benchmarks.soak.http_load import Address, Answer, Connection, closed_loop, put
from benchmarks.soak.service import Service
from benchmarks.spoilt import Spoilt, pictures, spoilt

TOLERANCE = {"exact": 1e-3, "bf16": 2e-2}  # of a probability
_PATH = "/v1/classify?top_k=1000"
_MOST = 32
_BOUNDARY = "neighbours-d41d8cd9"
_SHOWN = 5  # of what went wrong


@dataclass
class Findings:
    """What came back, against what was said of each file alone."""

    requests: int = 0
    good: int = 0
    corrupt: Counter[str] = field(default_factory=Counter)
    bitwise: int = 0
    same_top_class: int = 0
    largest_deviation: float = 0.0
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def fault(self, kind: str, example: object) -> None:
        self.wrong[kind] += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{kind}: {example}"[:300])


@dataclass(frozen=True)
class Alone:
    """What was said of a file by itself: probabilities by class index, or the error's code and message."""

    data: bytes
    probabilities: dict[int, float] | None = None
    error: tuple[str, str] | None = None
    kind: str = ""


async def measure(
    address: Address, *, batches: int, tolerance: float, clients: int = 4, files: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Ask a server that is ready, and whose runtime does not change any more."""
    draw = np.random.default_rng(seed)
    connections = [Connection(address) for _ in range(clients)]
    good = [await _good_alone(connections[0], data) for data in pictures(draw, count=files)]
    asked = [(each, await _ask_alone(connections[0], each.data)) for each in spoilt(draw, count=files)]
    bad = [_refused_alone(each, answer) for each, answer in asked if answer.status != 200 or each.kind != "bits turned"]
    found = Findings()
    began = time.perf_counter()
    started = 0

    async def ask(number: int) -> None:
        nonlocal started
        started += 1
        batch = _batch(draw, good, bad)
        answer = await connections[number].ask(_request([each.data for each in batch], as_json=draw.random() < 0.5))
        compare(batch, answer, found, tolerance=tolerance)

    await closed_loop(ask, clients=clients, going=lambda: started < batches)
    for connection in connections:
        connection.close()
    return {
        "passed": not found.wrong and found.requests == batches,
        "requests": found.requests,
        "good_images": found.good,
        "corrupt_images": dict(found.corrupt),
        "tolerance": tolerance,
        "largest_deviation": found.largest_deviation,
        "same_top_class": round(found.same_top_class / max(1, found.good), 4),
        "bitwise_equal": round(found.bitwise / max(1, found.good), 4),
        "wrong": dict(found.wrong),
        "examples": found.examples,
        "seconds": round(time.perf_counter() - began, 1),
    }


def compare(batch: list[Alone], answer: Answer, found: Findings, *, tolerance: float) -> None:
    """One request's results, each with what was said of its file alone."""
    found.requests += 1
    if answer.status != 200:
        found.fault("request", f"{answer.status} {answer.reason} {answer.body[:200]!r}")
        return
    results = orjson.loads(answer.body)["results"]
    if [each["index"] for each in results] != list(range(len(batch))):
        found.fault("order", [each["index"] for each in results])
        return
    for alone, result in zip(batch, results, strict=True):
        error = result["error"] and (result["error"]["code"], result["error"]["message"])
        if alone.probabilities is None:
            found.corrupt[alone.kind] += 1
            if error != alone.error or result["top_k"]:
                found.fault("error of a corrupt image", f"{alone.kind}: {error} instead of {alone.error}")
            continue
        found.good += 1
        if error:
            found.fault("good image refused", error)
            continue
        _compare_good(alone.probabilities, result["top_k"], found, tolerance=tolerance)


def _compare_good(alone: dict[int, float], top_k: list[dict[str, Any]], found: Findings, *, tolerance: float) -> None:
    now = {each["class_index"]: each["probability"] for each in top_k}
    if now.keys() != alone.keys():
        found.fault("classes", sorted(now))
        return
    deviation = max(abs(now[index] - alone[index]) for index in now)
    found.largest_deviation = max(found.largest_deviation, deviation)
    found.bitwise += deviation == 0.0
    found.same_top_class += next(iter(now)) == next(iter(alone))
    if deviation > tolerance:
        found.fault("probability", f"{deviation:.2g} beside others")


def _batch(draw: np.random.Generator, good: list[Alone], bad: list[Alone]) -> list[Alone]:
    """2 to 32 files in any order, a hundredth to a half of them corrupt, one at least."""
    images = int(draw.integers(2, _MOST + 1))
    corrupt = min(images // 2, max(1, round(images * draw.uniform(0.01, 0.5))))
    chosen = [*draw.integers(len(good), size=images - corrupt)]
    batch = [good[i] for i in chosen] + [bad[i] for i in draw.integers(len(bad), size=corrupt)]
    return [batch[i] for i in draw.permutation(images)]


def _request(files: list[bytes], *, as_json: bool) -> bytes:
    if as_json:
        body = orjson.dumps({"images": [{"b64": base64.b64encode(file).decode()} for file in files]})
        return put(_PATH, body, Content_Type="application/json")
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="%d"\r\n\r\n'
    parts = [(head % i).encode() + file + b"\r\n" for i, file in enumerate(files)]
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    return put(_PATH, body, Content_Type=f"multipart/form-data; boundary={_BOUNDARY}")


async def _ask_alone(connection: Connection, file: bytes) -> Answer:
    return await connection.ask(_request([file], as_json=False))


async def _good_alone(connection: Connection, file: bytes) -> Alone:
    answer = await _ask_alone(connection, file)
    if answer.status != 200:
        raise RuntimeError(f"a good image was refused: {answer.status} {answer.reason} {answer.body!r}")
    top_k = orjson.loads(answer.body)["results"][0]["top_k"]
    return Alone(file, probabilities={each["class_index"]: each["probability"] for each in top_k})


def _refused_alone(file: Spoilt, answer: Answer) -> Alone:
    """Raises RuntimeError where the server took it, or refused it as something else."""
    problem = orjson.loads(answer.body)
    if answer.status not in {413, 422} or problem["code"] not in file.codes:
        raise RuntimeError(f"an image that is spoilt ({file.kind}) was answered by {answer.status}: {problem}")
    return Alone(file.data, error=(problem["code"], problem["detail"]), kind=file.kind)


async def _run(folder: Path, precision: str, batches: int) -> dict[str, Any]:
    service = Service(folder / precision, precision=precision)
    service.start()
    try:
        await service.ready()
        await service.settled()
        runtime = service.engines()[0]["runtime"]
        served = {"runtime": f"{runtime['name']}-{runtime['precision']}"}
        return served | await measure(service.address, batches=batches, tolerance=TOLERANCE[precision])
    finally:
        await service.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=10_000, help="requests, for each precision")
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=list(TOLERANCE))
    parser.add_argument("--record", type=Path, help="where to write the JSON object too")
    asked = parser.parse_args()
    if unknown := set(asked.precisions) - set(TOLERANCE):
        parser.error(f"no tolerance is stated for {', '.join(sorted(unknown))}")
    outcome: dict[str, Any] = {"benchmark": "neighbours", **origin()}
    with tempfile.TemporaryDirectory(prefix="resnetd-neighbours-") as folder:
        for precision in asked.precisions:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome[precision] = runner.run(_run(Path(folder), precision, asked.batches))
    line = json.dumps(outcome)
    if asked.record:
        asked.record.write_text(line + "\n")
    print(line)
    return 0 if all(outcome[precision]["passed"] for precision in asked.precisions) else 1


if __name__ == "__main__":
    raise SystemExit(main())
