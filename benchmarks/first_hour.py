"""A new user's first hour, measured: start, classify, import CIFAR-10, train Fashion-MNIST, serve it.

Meanwhile the worker, an engine, the HTTP process and Redis are each killed once.
`python -m benchmarks.first_hour [--no-kills] [--skip cifar,fashion]`; data from RESNETD_TEST_DATA.
The last line is one JSON object.
"""

import argparse
import gzip
import io
import itertools
import json
import os
import signal
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.origin import origin
from benchmarks.stack import PeakMemory, Stack, fresh_stack, rss

DATA = Path(os.environ.get("RESNETD_TEST_DATA", "../shared/data")).resolve()
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
TERMINAL = {"succeeded", "failed", "cancelled"}


def retrying(call: Callable[[], httpx.Response]) -> httpx.Response:
    """A request as a patient client makes it: again after a broken connection or a 503."""
    until = time.monotonic() + 120
    while True:
        try:
            answer = call()
            if answer.status_code != 503 or time.monotonic() > until:
                return answer
        except httpx.HTTPError:
            if time.monotonic() > until:
                raise
        time.sleep(0.3)


def wait(client: httpx.Client, job_id: str) -> dict[str, Any]:
    while True:
        job = retrying(lambda: client.get(f"/v1/jobs/{job_id}", params={"wait": 10})).json()
        if job["state"] in TERMINAL:
            return job


def upload(client: httpx.Client, path: Path, name: str) -> tuple[str, str]:
    with path.open("rb") as file:
        answer = client.post("/v1/datasets", params={"name": name}, content=file).raise_for_status().json()
    return answer["id"], answer["job"]["id"]


def measure_start(stack: Stack) -> dict[str, Any]:
    first = stack.start()
    photo = (DATA / "photos" / "n02123159_tiger_cat.jpg").read_bytes()
    with stack.client() as client:
        began = time.monotonic()
        answer = client.put("/v1/classify", content=photo).raise_for_status().json()
        classified = time.monotonic() - began
    stopped = stack.stop()
    second = stack.start()
    return {
        "first_start_s": round(first, 2),
        "first_photo_s": round(classified, 3),
        "first_photo": answer["results"][0]["top_k"][0],
        "stop_s": round(stopped, 2),
        "second_start_s": round(second, 2),
    }


def measure_cifar(stack: Stack) -> dict[str, Any]:
    http = stack.main_process("app")
    idle = rss(http)
    server, importer = PeakMemory(stack, "app"), PeakMemory(stack, "worker.importer")
    server.start()
    importer.start()
    with stack.client() as client:
        began = time.monotonic()
        dataset_id, job_id = upload(client, DATA / "cifar10.zip", "cifar10")
        uploaded = time.monotonic() - began
        job = wait(client, job_id)
        imported = time.monotonic() - began
        dataset = client.get(f"/v1/datasets/{dataset_id}").json()
    return {
        "state": job["state"],
        "upload_s": round(uploaded, 2),
        "upload_and_import_s": round(imported, 2),
        "server_above_idle_mb": round((server.stop() - idle) / 1e6, 1),
        "importer_peak_mb": round(importer.stop() / 1e6, 1),
        "splits": {name: split["images"] for name, split in dataset["splits"].items()},
    }


class Watcher(threading.Thread):
    """Follows a job's events over SSE, reconnecting with Last-Event-ID, as a browser does."""

    def __init__(self, url: str, job_id: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/v1/jobs/{job_id}/events"
        self.events: list[tuple[str, str, dict[str, Any], float]] = []
        self.connections = 0

    def run(self) -> None:
        last = ""
        while True:
            try:
                for event_id, kind, data in self._stream(last):
                    if kind == "end":
                        return
                    last = event_id
                    self.events.append((event_id, kind, data, time.monotonic()))
            except httpx.HTTPError:
                time.sleep(0.2)

    def _stream(self, last: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        self.connections += 1
        with httpx.stream("GET", self._url, headers=headers, timeout=30) as answer:
            answer.raise_for_status()
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.strip()
                elif "event" in fields:
                    yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                    fields = {}


def fashion_zip(folder: Path) -> Path:
    path = folder / "fashion.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((DATA / "fashion-mnist").glob("*.gz")):
            archive.write(file, file.name)
        archive.writestr("classes.txt", "\n".join(FASHION))
    return path


def kill_parts(stack: Stack, client: httpx.Client, job_id: str) -> list[str]:
    """SIGKILL to the worker, an engine, the HTTP process and Redis, one after the other while steps run."""
    killed = []
    for module, fraction in (("worker", 0.15), ("app.engine", 0.35), ("app", 0.5), ("redis-server", 0.65)):
        while True:
            job = retrying(lambda: client.get(f"/v1/jobs/{job_id}")).json()
            if job["state"] in TERMINAL:
                return killed
            if job["state"] == "running" and (job["progress"] or {}).get("fraction", 0) >= fraction:
                break
            time.sleep(0.1)
        pids = stack.processes(module)
        if pids:
            os.kill(pids[0], signal.SIGKILL)
            killed.append(f"{module} at {job['progress']['fraction']:.0%}")
    return killed


def measure_fashion(stack: Stack, *, kills: bool) -> dict[str, Any]:
    with stack.client() as client:
        dataset_id, import_id = upload(client, fashion_zip(stack.data.parent), "fashion-mnist")
        assert wait(client, import_id)["state"] == "succeeded"
        request = {"kind": "train", "dataset": dataset_id, "recipe": "fashion-mnist-small"}
        request |= {"register_as": "fashion", "alias": "production"}
        began = time.monotonic()
        job_id = client.post("/v1/jobs", json=request).raise_for_status().json()["id"]
        watcher = Watcher(stack.url, job_id)
        watcher.start()
        killed = kill_parts(stack, client, job_id) if kills else []
        job = wait(client, job_id)
        seconds = time.monotonic() - began
        watcher.join(60)
        history = all_events(client, job_id)
        served = classify_test_images(client)
    spoken = [(data, moment) for _, kind, data, moment in watcher.events if kind == "progress"]
    at = [moment for _, moment in spoken]
    pairs = [(after - before, (a["phase"], b["phase"])) for (a, before), (b, after) in itertools.pairwise(spoken)]
    gaps, stepping = [gap for gap, _ in pairs], [gap for gap, phases in pairs if phases == ("train", "train")]
    test = (job["result"] or {}).get("metrics", {})
    return {
        "state": job["state"],
        "job_s": round(seconds, 1),
        "claims": job["attempts"],
        "killed": killed,
        "metrics": {key: test.get(key) for key in ("split", "top1", "correct", "total", "ece", "ece_uncalibrated")},
        "train_s": test.get("train_seconds"),
        "served": served,
        "events": len(history),
        "events_missed_or_doubled": len(set(history) ^ {e[0] for e in watcher.events})
        + len(watcher.events)
        - len({e[0] for e in watcher.events}),
        "sse_connections": watcher.connections,
        "longest_progress_gap_s": round(max(gaps, default=0), 2),
        "longest_gap_while_steps_run_s": round(max(stepping, default=0), 2),
        "progress_per_s": round(len(at) / max(at[-1] - at[0], 1e-9), 2) if at else 0,
    }


def all_events(client: httpx.Client, job_id: str) -> list[str]:
    ids, after = [], None
    while True:
        params = {"limit": 100} | ({"after": after} if after else {})
        answer = client.get(f"/v1/jobs/{job_id}/events", params=params, headers={"Accept": "application/json"})
        page = answer.raise_for_status().json()
        ids += [event["id"] for event in page["data"]]
        if not page["has_more"]:
            return ids
        after = page["next"]


def classify_test_images(client: httpx.Client) -> dict[str, Any]:
    """The 10,000 test images as PNG, 100 a request, against the alias that the job set."""
    folder = DATA / "fashion-mnist"
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    _, count, height, width = struct.unpack(">4I", raw[:16])
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(count, height, width)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    correct, began = 0, time.monotonic()
    for start in range(0, count, 100):
        files = [("file", (f"{i}.png", png(images[i]), "image/png")) for i in range(start, min(start + 100, count))]
        ask = {"files": files, "params": {"top_k": 1}}
        answer = (
            retrying(lambda ask=ask: client.post("/v1/models/fashion@production:classify", **ask))
            .raise_for_status()
            .json()
        )
        correct += sum(r["top_k"][0]["class_index"] == labels[start + r["index"]] for r in answer["results"])
    return {"correct": int(correct), "total": count, "s": round(time.monotonic() - began, 1)}


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--skip", default="", help="cifar, fashion")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "first_hour", **origin()}
    with fresh_stack() as stack:
        figures["start"] = measure_start(stack)
        print(json.dumps(figures), flush=True)
        if "cifar" not in arguments.skip:
            figures["cifar10"] = measure_cifar(stack)
            print(json.dumps(figures["cifar10"]), flush=True)
        if "fashion" not in arguments.skip:
            figures["fashion_mnist"] = measure_fashion(stack, kills=not arguments.no_kills)
        figures["final_stop_s"] = round(stack.stop(), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
