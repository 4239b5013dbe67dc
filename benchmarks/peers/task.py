"""What a peer serves and how, as its processes are told in a variable: the same work in each of them.

`load()` gives a function from the files of a batch to their answers, in order, each `{"predictions": [{"label",
"probability"}]}`. It runs in the peer's worker processes, in the peers' own environment.
"""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

VARIABLE = "PEER_TASK"
Answer = dict[str, Any]
Work = Callable[[list[bytes]], list[Answer]]


@dataclass(frozen=True)
class Task:
    """The model version in `folder`, in so many `workers`, processes that compute on `device` with `threads` each.

    `runtime` and `numbers` are one of ours, `converted` the folder that it needs; without them the model is served as
    people write it. `wait`, in seconds: how long a batch that is not full waits for more.
    """

    folder: Path
    network: str
    device: str
    workers: int
    threads: int
    max_batch: int
    wait: float
    port: int
    runtime: str | None = None
    numbers: str | None = None
    converted: Path | None = None

    def variables(self) -> dict[str, str]:
        return {VARIABLE: _TASK.dump_json(self).decode()}

    @property
    def wait_ms(self) -> int:
        return max(1, round(self.wait * 1000))


_TASK = TypeAdapter(Task)


def told() -> Task:
    """This process's task."""
    return _TASK.validate_json(os.environ[VARIABLE])


def load(task: Task) -> Work:
    return _with_our_runtime(task) if task.runtime else _as_people_write_it(task)


def _as_people_write_it(task: Task) -> Work:
    import torch  # noqa: PLC0415 - a peer's processes that only pass requests on do without it
    import torchvision  # noqa: PLC0415 - likewise
    from PIL import Image  # noqa: PLC0415 - likewise
    from safetensors.torch import load_file  # noqa: PLC0415 - likewise
    from torchvision.transforms._presets import ImageClassification  # noqa: PLC0415 - likewise

    classes = json.loads((task.folder / "model.json").read_text())["classes"]
    model = torchvision.models.get_model(task.network, num_classes=len(classes))
    model.load_state_dict(load_file(task.folder / "weights.safetensors"))
    model.eval().to(task.device)
    preprocess = ImageClassification(crop_size=224, resize_size=256)

    def work(files: list[bytes]) -> list[Answer]:
        images = [preprocess(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        with torch.inference_mode():
            likely = model(torch.stack(images).to(task.device)).softmax(1).topk(5)
        pairs = zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        return [_answer(classes, indices, values) for values, indices in pairs]

    return work


def _with_our_runtime(task: Task) -> Work:
    import numpy as np  # noqa: PLC0415 - as above

    from app.engine.decode import reader  # noqa: PLC0415 - as above
    from app.engine.runtimes.base import Candidate, Numbers  # noqa: PLC0415 - as above
    from app.engine.runtimes.loading import load as load_runtime  # noqa: PLC0415 - as above
    from app.engine.runtimes.threads import use_threads  # noqa: PLC0415 - as above
    from models import runtime as reference  # noqa: PLC0415 - as above
    from models.manifest import Manifest  # noqa: PLC0415 - as above
    from store.settings import RuntimeName  # noqa: PLC0415 - as above

    manifest = Manifest.read(task.folder)
    loaded = load_runtime(
        Candidate(RuntimeName(task.runtime), Numbers(task.numbers)),
        lambda: reference.load(task.folder, task.device),
        task.converted,
        device=task.device,
        cores=task.threads,
    )
    read = reader(manifest.preprocessing, max_pixels=10**8, exact=False)

    def work(files: list[bytes]) -> list[Answer]:
        use_threads(task.threads)
        pixels = np.stack([read(file)[0] for file in files])
        likely = reference.probabilities(loaded.wide(pixels).logits, manifest)
        order = np.argsort(-likely, axis=1)[:, :5]
        return [_answer(manifest.classes, best, row[best]) for best, row in zip(order, likely, strict=True)]

    return work


def _answer(classes: Any, indices: Any, probabilities: Any) -> Answer:  # noqa: ANN401 - lists or arrays
    pairs = zip(indices, probabilities, strict=True)
    return {"predictions": [{"label": classes[int(i)], "probability": float(p)} for i, p in pairs]}
