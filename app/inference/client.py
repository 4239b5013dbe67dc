"""How the HTTP processes reach engines: from a model's name to classified images. Without torch."""

import asyncio
from collections.abc import Sequence
from typing import Any

from app.inference.answers import (
    Classified,
    EngineHealth,
    Explanations,
    Pictures,
    Tensors,
    files,
    tensors,
)
from app.inference.asking import Asking, Question
from app.inference.connections import Connections
from app.inference.errors import TooManyLabels, raise_error
from app.inference.figures import EngineFigures
from app.inference.limits import engine_limits
from app.inference.pings import SILENCE, Pings
from app.inference.protocol import (
    ExplainAnswer,
    InferAnswer,
    Output,
    PreprocessAnswer,
    TensorHead,
    TensorInput,
    Timings,
)
from app.inference.routes import Choice, RoutesFile
from app.inference.shadow import Shadows
from app.inference.sizes import FEW_LABELS, most_labels
from models.catalog import PRODUCTION, Catalog, ModelNotFound
from models.manifest import ModelDamagedError
from store.layout import Layout
from store.settings import Settings


class Engines:
    """All engines of this machine, seen from one HTTP process. Needs a running event loop only when called."""

    def __init__(self, layout: Layout, settings: Settings, *, silence: float = SILENCE) -> None:
        self._settings = settings
        self._catalog = Catalog(layout.models)
        self._routes = RoutesFile(layout.routes)
        self._connections = Connections(self._routes, layout.fleet_socket)
        self._pings = Pings(self._routes, self._connections, silence=silence)
        self.asking = Asking(self._choose, self._connections, self._pings, limits=engine_limits(settings))
        self.shadows = Shadows(self._copy)

    def resolve(self, model_ref: str | None) -> tuple[str, int]:
        """The name and version that serve `name`, `name@3` or `name@alias` now; None is the default model.

        While an alias moves it is the old version, until the new one is ready. Raises ModelNotFound.
        """
        ref = model_ref or self._settings.model
        name, _, selector = ref.partition("@")
        routes = self._routes.read()
        serving = routes.aliases.get(name, {}).get(selector or PRODUCTION) or routes.ready(name, selector)
        if serving is not None and not ref.endswith("@"):
            return name, serving
        return self._catalog.resolve(ref)  # from the disk: for what is not loaded

    def _choose(self, model_ref: str | None, draw: float) -> Choice:
        """Who answers a request that drew this number: the version of `resolve`, or the alias's canary."""
        ref = model_ref or self._settings.model
        name, _, selector = ref.partition("@")
        found = None if ref.endswith("@") else self._routes.read().choose(name, selector or PRODUCTION, draw)
        if found is None:
            name, version = self.resolve(model_ref)
            return Choice(model=name, version=version)
        return found

    async def _copy(self, name: str, version: int, fields: dict[str, Any], payload: Sequence[bytes]) -> dict[str, Any]:
        """A shadow's answer, where it has an engine that is ready. Raises InferenceError, OSError, TimeoutError."""
        timeout = self._settings.request_timeout_seconds
        async with asyncio.timeout(timeout):
            connection = await self._connections.at_once(name, version)
            header, _ = await connection.exchange("classify", {**fields, "timeout": timeout}, payload)
        raise_error(header)
        return header

    async def classify(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        top_k: int = 5,
        outputs: Sequence[Output] = (),
        timeout: float,  # noqa: ASYNC109 - it travels to the engine, which stops working when it is over
    ) -> Classified:
        """Classify encoded images (JPEG, PNG, …) by `name`, `name@3` or `name@alias`; None is the default model.

        Bad images have an error of their own in the results. `top_k` ≥ 1 is clamped to the number of classes; `outputs`
        come as tensors, from the same forward pass; `timeout` is in seconds, the loading of a model that is not loaded
        included. Cancelling the task cancels the work. Raises ModelNotFound, EngineStarting, EngineUnavailable,
        EngineOverloaded, DeadlineExceeded, RequestRefused, EngineFailed. So do all that compute; this also raises
        TooManyLabels.
        """
        if top_k < 1:
            raise ValueError("top_k must be at least 1")
        if len(images) * top_k > FEW_LABELS:
            await asyncio.to_thread(self._check_room, model_ref, len(images), top_k)
        fields = {"top_k": top_k, "sizes": [len(image) for image in images], "outputs": outputs}
        choice, header, payload = await self.asking.ask(model_ref, Question("classify", fields, images, timeout))
        self.shadows.copy(choice, fields, images, header)
        return Classified(
            model=choice.model,
            version=choice.version,
            rows=header["results"],
            tensors=tensors(list(map(TensorHead.model_validate, header["tensors"])), payload),
            timings_ms=Timings.model_validate(header["timings_ms"]),
        )

    def _check_room(self, model_ref: str | None, images: int, top_k: int) -> None:
        """In a thread: it may read a manifest. Raises TooManyLabels, and ModelNotFound."""
        classes = self._catalog.manifest(*self.resolve(model_ref)).classes
        most = most_labels(classes, images=images)
        if min(top_k, len(classes)) > most:
            raise TooManyLabels(images=images, top_k=min(top_k, len(classes)), most=most)

    async def infer(
        self,
        model_ref: str | None,
        tensor: bytes,
        *,
        kind: TensorInput,
        shape: Sequence[int],
        outputs: Sequence[Output],
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Tensors:
        """The outputs for images that the client has prepared itself: `tensor`, little-endian, in C order."""
        fields = {"input": kind, "shape": shape, "outputs": outputs}
        choice, header, payload = await self.asking.ask(model_ref, Question("infer", fields, [tensor], timeout))
        answer = InferAnswer.model_validate(header)
        found = tensors(answer.tensors, payload)
        return Tensors(model=choice.model, version=choice.version, tensors=found, timings_ms=answer.timings_ms)

    async def explain(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        class_index: int | None,
        overlay: bool,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Explanations:
        """Where in each image the network saw `class_index`, or where that is None the likeliest class."""
        sizes = [len(image) for image in images]
        fields = {"class_index": class_index, "overlay": overlay, "sizes": sizes}
        choice, header, payload = await self.asking.ask(model_ref, Question("explain", fields, images, timeout))
        answer = ExplainAnswer.model_validate(header)
        overlays = files([each.png for each in answer.results], payload)
        timings = answer.timings_ms
        return Explanations(
            model=choice.model, version=choice.version, results=answer.results, overlays=overlays, timings_ms=timings
        )

    async def preprocess(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Pictures:
        """What the network sees of each image, to the bit."""
        fields = {"sizes": [len(image) for image in images]}
        choice, header, payload = await self.asking.ask(model_ref, Question("preprocess", fields, images, timeout))
        answer = PreprocessAnswer.model_validate(header)
        pictures = files([each.png for each in answer.results], payload)
        return Pictures(
            model=choice.model,
            version=choice.version,
            results=answer.results,
            files=pictures,
            timings_ms=answer.timings_ms,
        )

    def refusing(self, model_ref: str | None, op: str, *, size: int) -> bool:
        """Whether a request to this model, of one image in a body of `size` bytes, would wait too long or has no place,
        whichever version of an alias it falls to: who comes now need not send it. Raises ModelNotFound.
        """
        return self.asking.refusing(model_ref, op, size=size, timeout=self._settings.request_timeout_seconds)

    async def figures(self) -> list[EngineFigures]:
        """What every engine tells of itself now; from those that do not answer at once no more than what is known."""
        return await self._pings.figures()

    async def health(self) -> EngineHealth:
        """Whether the default model's engine answers a real inference, in less than two seconds in any case."""
        try:
            name, version = self.resolve(None)
        except ModelNotFound as error:
            return EngineHealth(ready=False, model=self._settings.model, reason=f"{error}; {error.hint}")
        except ModelDamagedError as error:
            return EngineHealth(ready=False, model=self._settings.model, reason=str(error))
        return await self._pings.health(name, version)

    async def close(self) -> None:
        await self.shadows.close()
        await self._pings.close()
        await self._connections.close()
