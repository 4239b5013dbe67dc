"""The Open Inference Protocol, version 2, over the same engines as everything else.

A model takes images in one of three inputs: `image` (files, as BYTES), `pixels` (UINT8, as `:preprocess` shows them)
or `normalised` (FP32, the network's own input). It gives `probabilities`, `logits` and `embedding`.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import numpy as np
import numpy.typing as npt
import orjson

from app.inference.answers import Tensors
from app.inference.client import Engines
from app.inference.errors import InferenceError
from app.inference.fleet import FleetClient
from app.inference.protocol import Output, TensorInput
from app.inference.routes import EngineState, Route
from app.inference.sizes import FEW_LABELS, most_labels
from app.metrics import Metrics
from app.problems import BadRequestError, InvalidError, NotFoundError, ProblemError, UnavailableError
from app.services.classification import array_of, problem_of
from app.services.models import Models
from app.services.requests_v2 import DATATYPES, IMAGE, MOST_IN_JSON, Asked, Files, Limits, Wanted, read_request
from app.services.statistics_v2 import Statistics
from app.services.tensors_v2 import Encoded, classification, numbers, refused
from models.catalog import Catalog, ModelNotFound
from models.manifest import Manifest
from models.weights import embedding_width
from store.settings import Settings

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
PLATFORM = "pytorch_safetensors"
BACKEND = "resnetd"
#: What Triton's configurations call the datatypes, and how the inputs lie.
_DATA_TYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}
_FORMATS = {
    IMAGE: "FORMAT_NONE",
    TensorInput.PIXELS.value: "FORMAT_NHWC",
    TensorInput.NORMALISED.value: "FORMAT_NCHW",
}
_STATES = {
    EngineState.READY: "READY",
    EngineState.STARTING: "LOADING",
    EngineState.DRAINING: "UNLOADING",
    EngineState.FAILED: "UNAVAILABLE",
}
_READ_IN_THREAD = 256 * 1024  # bytes of a body from which reading it would be felt by other requests


@dataclass(frozen=True)
class Inferred:
    """An answer's body; `header_length` is how much of it is JSON, None where it is JSON alone."""

    body: bytes
    header_length: int | None


class InferenceV2:
    def __init__(
        self, engines: Engines, fleet: FleetClient, models: Models, catalog: Catalog, settings: Settings
    ) -> None:
        self._engines = engines
        self._fleet = fleet
        self._models = models
        self._catalog = catalog
        self._limits = Limits(
            images=settings.max_images_per_request,
            image_bytes=settings.max_image_bytes,
            tensor_bytes=settings.max_request_bytes,
        )
        self._timeout = settings.request_timeout_seconds
        self._statistics = Statistics(engines)
        self._widths: dict[tuple[str, int], int] = {}  # of embeddings: versions never change

    async def metadata(self, model: str, version: str | None) -> dict[str, Any]:
        """A model's inputs and outputs. Raises NotFoundError."""
        name, number, manifest = await self._find(model, version)
        single = version is not None or "@" in model
        versions = [number] if single else await anyio.to_thread.run_sync(self._catalog.versions, name)
        to, classes = manifest.preprocessing, len(manifest.classes)
        width = await anyio.to_thread.run_sync(self._width, name, number)
        inputs = {
            IMAGE: (1,),  # Triton wants a dimension behind that of the batch; (N) is taken, too
            TensorInput.PIXELS.value: (to.height, to.width, to.channels),
            TensorInput.NORMALISED.value: (to.channels, to.height, to.width),
        }
        outputs = {Output.PROBABILITIES: classes, Output.LOGITS: classes, Output.EMBEDDING: width or -1}
        return {
            "name": name,
            "versions": [str(each) for each in versions],
            "platform": PLATFORM,
            "inputs": [
                {"name": each, "datatype": DATATYPES[each], "shape": [-1, *shape]} for each, shape in inputs.items()
            ],
            "outputs": [
                {"name": each.value, "datatype": "FP32", "shape": [-1, width]} for each, width in outputs.items()
            ],
        }

    async def config(self, model: str, version: str | None) -> dict[str, Any]:
        """What `metadata` tells, as Triton's ModelConfig: `dims` are of one image. Raises NotFoundError."""
        told = await self.metadata(model, version)
        inputs, outputs = (
            [
                {"name": each["name"], "data_type": _DATA_TYPES[each["datatype"]], "dims": each["shape"][1:]}
                for each in told[kind]
            ]
            for kind in ("inputs", "outputs")
        )
        return {
            "name": told["name"],
            "platform": told["platform"],
            "backend": BACKEND,
            "max_batch_size": self._limits.images,
            "input": [{**each, "format": _FORMATS[each["name"]], "optional": True} for each in inputs],
            "output": outputs,
        }

    async def statistics(self, metrics: Metrics, model: str | None, version: str | None) -> dict[str, Any]:
        """Of a version, of all versions of a model, or of all versions of all models. Raises NotFoundError."""
        if model is None:
            versions = await anyio.to_thread.run_sync(self._every_version)
        else:
            name, number, _ = await self._find(model, version)
            single = version is not None or "@" in model
            numbers = [number] if single else await anyio.to_thread.run_sync(self._catalog.versions, name)
            versions = [(name, each) for each in numbers]
        return await self._statistics.of(versions, metrics)

    async def ready(self, model: str, version: str | None) -> str:
        """The name of a model that is ready.

        Raises NotFoundError, and BadRequestError where no engine of it answers: the protocol knows no other code.
        """
        name, number, _ = await self._find(model, version)
        route = self._route(name, number)
        if route is None or route.state is not EngineState.READY:
            said = "is not loaded" if route is None else route.reason or f"is {route.state}"
            hint = "The first request loads it, and so does POST /v2/repository/models/{name}/load."
            raise BadRequestError("model_not_ready", f"{name}@{number} {said}.", hint=hint)
        return name

    async def index(self, *, ready: bool) -> list[dict[str, str]]:
        """Every version of every model, or those alone that answer now."""
        found = []
        for name, version in await anyio.to_thread.run_sync(self._every_version):
            route = self._route(name, version)
            found.append(_entry(name, version, route.state if route else None, route.reason if route else None))
        return [each for each in found if each["state"] == "READY" or not ready]

    async def load(self, model: str) -> dict[str, str]:
        """The version's entry of the index, once it is ready. Raises NotFoundError, ConflictError, UnavailableError."""
        told = await self._models.load(model)
        name, version = told["model"], told["version"]
        if told["state"] != EngineState.READY:
            detail = f"{name}@{version} is still being loaded."
            raise UnavailableError("model_loading", detail, hint="Ask again soon.", retry_after=5)
        return _entry(name, version, EngineState.READY, None)

    async def unload(self, model: str) -> dict[str, str]:
        """The version's entry of the index, once its memory is free. Raises as `load`; Conflict where it is needed.

        A bare name means all versions that are loaded, as Triton has it, unless the one that it stands for is needed.
        """
        told = await self._models.unload(model)
        name, version = told["model"], told["version"]
        if model == name:
            for route in self._fleet.engines(name):
                await self._models.unload(f"{name}@{route.version}")
        return _entry(name, version, None, None)

    async def infer(self, body: bytes, *, header_length: str | None, model: str, version: str | None) -> Inferred:
        """Raises ProblemError."""
        if len(body) < _READ_IN_THREAD:
            asked = read_request(body, header_length, self._limits)
        else:
            asked = await anyio.to_thread.run_sync(read_request, body, header_length, self._limits)
        classes: Sequence[str] = ()
        try:
            answer = await self._ask(asked.named(_ref(model, version)), asked)
            if any(each.classes for each in asked.outputs):
                manifest = await anyio.to_thread.run_sync(self._catalog.manifest, answer.model, answer.version)
                classes = manifest.classes
        except (ModelNotFound, InferenceError) as error:
            raise problem_of(error) from error
        labels = sum(len(rows) * min(each.classes, len(classes)) for each, rows in _rows(asked, answer))
        values = sum(rows.size for each, rows in _rows(asked, answer) if not (each.classes or each.binary))
        if values > MOST_IN_JSON:
            raise refused(f"{values:,} values are too many in JSON", hint="Ask for these outputs with `binary_data`.")
        if labels <= FEW_LABELS:
            return _encoded(asked, answer, classes)
        return await anyio.to_thread.run_sync(_encoded, asked, answer, classes)

    async def _ask(self, ref: str, asked: Asked) -> Tensors:
        """Raises BadRequestError for the first image that is none: this protocol has no error for one of several."""
        images, outputs = asked.images, asked.names
        timeout = min(self._timeout, asked.timeout or self._timeout)
        if not isinstance(images, Files):
            return await self._engines.infer(
                ref, images.data, kind=images.kind, shape=images.shape, outputs=outputs, timeout=timeout
            )
        answer = await self._engines.classify(ref, images.files, top_k=1, outputs=outputs, timeout=timeout)
        for result in answer.results:
            error = result.error
            if error is None:
                continue
            detail = f"image {result.index}: {error.code}: {error.message}"
            if error.code == "internal":
                raise ProblemError("engine_failed", f"{detail}.", hint=error.hint)
            raise refused(detail, hint=error.hint)
        return answer

    async def _find(self, model: str, version: str | None) -> tuple[str, int, Manifest]:
        def find() -> tuple[str, int, Manifest]:
            name, number = self._engines.resolve(_ref(model, version))
            return name, number, self._catalog.manifest(name, number)

        try:
            return await anyio.to_thread.run_sync(find)
        except ModelNotFound as error:
            raise NotFoundError("model_not_found", f"{error}.", hint=error.hint) from error

    def _width(self, name: str, version: int) -> int | None:
        """Of a version's embedding, None where its weights do not tell."""
        if (name, version) not in self._widths:
            with suppress(ModelNotFound):  # it has just been deleted
                if (found := embedding_width(self._catalog.folder(name, version))) is not None:
                    self._widths[name, version] = found
        return self._widths.get((name, version))

    def _every_version(self) -> list[tuple[str, int]]:
        catalog = self._catalog
        return [(name, version) for name in catalog.names() for version in catalog.versions(name)]

    def _route(self, name: str, version: int) -> Route | None:
        """The engine of a version; one on its way out where there is no other."""
        same = [route for route in self._fleet.engines(name) if route.version == version]
        return min(same, key=lambda route: route.state is EngineState.DRAINING, default=None)


def _entry(name: str, version: int, state: EngineState | None, reason: str | None) -> dict[str, str]:
    """A version in the index; `state` None: no engine has it."""
    shown = "UNAVAILABLE" if state is None else _STATES[state]
    told = reason or ("unloaded" if state is None else "")
    return {"name": name, "version": str(version), "state": shown, "reason": told}


def _ref(model: str, version: str | None) -> str:
    return model if version is None else f"{model}@{version}"


def _rows(asked: Asked, answer: Tensors) -> list[tuple[Wanted, npt.NDArray[np.float32]]]:
    """Each output that is wanted, with its tensor: a row for each image."""
    return [(each, array_of(answer.tensors[each.name])) for each in asked.outputs]


def _check_room(asked: Asked, classes: Sequence[str], *, images: int) -> None:
    """Raises InvalidError for more labels than `/v1` has room for in an answer."""
    wanted = sum(min(each.classes, len(classes)) for each in asked.outputs)
    most = most_labels(classes, images=images) if images * wanted > FEW_LABELS else wanted
    if wanted > most:
        detail = f"{wanted:,} labels for each of {images:,} images are too many for one answer."
        hint = f"Ask for a `classification` of {most:,} at most, all outputs together, or with fewer images at once."
        raise InvalidError("too_many_labels", detail, hint=hint)


def _encoded(asked: Asked, answer: Tensors, classes: Sequence[str]) -> Inferred:
    """Raises as `_check_room`. Of many labels it takes a second: to be called in a thread."""
    outputs: list[Encoded] = []
    rows = _rows(asked, answer)
    _check_room(asked, classes, images=len(rows[0][1]))
    for each, array in rows:
        if each.classes:
            outputs.append(classification(each.name.value, array, classes, count=each.classes, binary=each.binary))
        else:
            outputs.append(numbers(each.name.value, array, binary=each.binary))
    document: dict[str, Any] = {"model_name": answer.model, "model_version": str(answer.version)}
    if asked.id is not None:
        document["id"] = asked.id
    document["outputs"] = [each.head for each in outputs]
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(each.binary for each in asked.outputs):
        return Inferred(head, None)
    return Inferred(b"".join([head, *(each.binary for each in outputs)]), len(head))
