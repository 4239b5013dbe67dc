"""The Python client: the HTTP interface as methods.

    with Client("http://127.0.0.1:8000") as client:
        upload = client.upload_dataset("images.zip", name="mine")
        client.wait(upload["job"]["id"])
        job = client.train(upload["id"], recipe="cifar10-resnet20", register_as="mine", alias="production")
        for event in client.events(job["id"]):
            print(event.at, event.type, event.data)
        print(client.classify("cat.jpg", model="mine"))

What the server answers is returned as it came, decoded from JSON; docs/api.md shows each answer. Every method raises
`Problem` for a refusal and `Unreachable` where nobody answers, once waiting has not helped (see `Transport`).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx

from resnetd.counted import Counted, Pieces, ignore
from resnetd.job_calls import JobCalls
from resnetd.model_calls import ModelCalls
from resnetd.transport import Json, given, segment

Image = str | Path | bytes  # where an image file is, or what is in it


def _content(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _called(paths: Sequence[Path]) -> str:
    """What to call the dataset of these files: like the one, like the folder that several were named in."""
    first = Path(os.path.abspath(paths[0]))  # noqa: PTH100 - resolve() would tell the folder that a link leads to
    return (first.parent.name if len(paths) > 1 else "") or first.name.partition(".")[0] or first.name


class Client(JobCalls, ModelCalls):
    """One server."""

    # Classification

    def classify(
        self,
        images: Image | Sequence[Image],
        *,
        model: str | None = None,
        top_k: int | None = None,
        outputs: Sequence[str] = (),
    ) -> Json:
        """Labels for an image or several, in one request; each image has its own result or its own error.

        `outputs` of `embedding`, `logits` and `probabilities` come with each result.
        """
        several: Sequence[Image] = [images] if isinstance(images, str | Path | bytes) else images
        files = [
            ("file", (f"image-{number}" if isinstance(image, bytes) else Path(image).name, _content(image)))
            for number, image in enumerate(several)
        ]
        fields = given({"model": model, "top_k": top_k, "outputs": ",".join(outputs) or None})
        data = {name: str(value) for name, value in fields.items()}
        return self._json(self._request("POST", "/v1/classify", data=data, files=files, repeat=True))

    def explain(self, image: Image, *, model: str | None = None, class_index: int | None = None) -> Json:
        """Where in an image the network saw a class, by default the likeliest: its result, with `heatmap`."""
        answer = self._json(self._show("explain", image, model, "application/json", {"class_index": class_index}))
        return {"model": answer["model"], "version": answer["version"], **answer["results"][0]}

    def overlay(self, image: Image, *, model: str | None = None, class_index: int | None = None) -> tuple[bytes, Json]:
        """What `explain` finds, as a PNG file drawn over the image; and its `model`, `label`, `probability`."""
        answer = self._show("explain", image, model, "image/png", {"class_index": class_index})
        said = answer.headers
        return answer.content, {
            "model": said["X-Model"],
            "label": unquote(said["X-Class-Label"]),
            "class_index": int(said["X-Class-Index"]),
            "probability": float(said["X-Probability"]),
        }

    def preprocess(self, image: Image, *, model: str | None = None) -> Json:
        """The pixels that the network sees: `png` (base64), `shape`, and the `sha256` of the pixels themselves."""
        answer = self._json(self._show("preprocess", image, model, "application/json", {}))
        return {"model": answer["model"], "version": answer["version"], **answer["results"][0]}

    def _show(
        self, verb: str, image: Image, model: str | None, accept: str, query: Mapping[str, Any]
    ) -> httpx.Response:
        headers = {"Accept": accept, "Content-Type": "application/octet-stream"}
        asked = given({"model": model, **query})
        content = _content(image)
        return self._request("POST", f"/v1/{verb}", params=asked, content=content, headers=headers, repeat=True)

    # Datasets

    def upload_dataset(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        name: str | None = None,
        priority: str | None = None,
        max_seconds: float | None = None,
        idempotency_key: str | None = None,
        on_bytes: Callable[[int], None] = ignore,
    ) -> Json:
        """Send an archive of images, or all files of one dataset (IDX); `{"id": "ds_…", "job": {"id": "job_…"}}`.

        Without `name` it is called like the file; where there are several, like the folder of the first. `priority`
        and `max_seconds` are the job's, as of `submit`. Sent again where that may help, under one Idempotency-Key:
        never two datasets. `on_bytes` gets each piece's size, and a negative one for what is sent again. Raises
        ValueError where there is no file.
        """
        paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
        if not paths:
            raise ValueError("an upload needs one file at least")
        query = given({"name": name or _called(paths), "priority": priority, "max_seconds": max_seconds})
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        with ExitStack() as opened:
            contents = [opened.enter_context(Counted(path, on_bytes)) for path in paths]
            sent: dict[str, Any]
            if len(paths) == 1:
                headers |= {
                    "Content-Length": str(paths[0].stat().st_size),
                    "Content-Type": "application/octet-stream",
                }
                sent = {"content": Pieces(contents[0])}
            else:
                sent = {"files": [("file", (path.name, each)) for path, each in zip(paths, contents, strict=True)]}
            answer = self._request("POST", "/v1/datasets", params=query, headers=headers, repeat=True, **sent)
            return self._json(answer)

    def datasets(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        name: str | None = None,
        status: str | None = None,
    ) -> Json:
        """A page, newest first; of those called `name`, in one of the states of `status`, with commas between."""
        return self._page("/v1/datasets", limit, after, name=name, status=status)

    def dataset(self, dataset_id: str, *, wait: float | None = None) -> Json:
        """The dataset now; with `wait`, once its import has ended, at the latest after so many seconds (60 at most)."""
        return self._get(f"/v1/datasets/{segment(dataset_id)}", given({"wait": wait}), wait=wait or 0.0)

    def delete_dataset(self, dataset_id: str) -> None:
        self._request("DELETE", f"/v1/datasets/{segment(dataset_id)}", repeat=True)

    # Recipes and networks

    def recipes(self) -> Json:
        """What a training may ask for, every field with its value."""
        return self._get("/v1/recipes")

    def recipe_fields(self) -> Json:
        """What each field of a recipe takes and means."""
        return self._get("/v1/recipe-fields")

    def architectures(self) -> Json:
        """The networks that a recipe may name."""
        return self._get("/v1/architectures")

    # The server

    def ready(self) -> bool:
        """Whether it classifies: an engine has really answered just now, and nobody has told the server to stop.

        `readiness` tells whether jobs run, too. Neither waits for a server that is away.
        """
        return self._send("GET", "/readyz").status_code == httpx.codes.OK

    def readiness(self) -> Json:
        """`status`, the names of what is `not_ready`, and `parts`, each with its `reason`, also where it is not ready.

        `status` is `ready`, `degraded` (it classifies, and another part is missing) or `not_ready`.
        """
        return self._json(self._request("GET", "/readyz", answers=(httpx.codes.SERVICE_UNAVAILABLE,)))
