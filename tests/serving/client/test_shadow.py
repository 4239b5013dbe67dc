"""Copies of requests for a version on trial: compared, bounded, and never felt by whoever asked."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine_scene import DONE, Scene, with_scene

from app.inference import shadow
from app.inference.errors import EngineUnavailable
from app.inference.protocol import Output, TensorInput
from app.inference.routes import Choice, EngineState, Route, Routes, Split
from app.inference.shadow import Shadowed, Shadows, agreement

CHOICE = Choice(model="toy", version=1, shadow=2)


def result(label: str | None) -> dict[str, Any]:
    return {"top_k": [] if label is None else [{"label": label, "class_index": 0, "probability": 1.0}]}


def answer(*names: str | None) -> dict[str, Any]:
    return {"results": [result(name) for name in names]}


def test_agreement_is_of_the_likeliest_labels_image_by_image() -> None:
    ours = [result("cat"), result("dog"), result("cat"), result(None), result(None)]
    theirs = [result("cat"), result("cat"), result(None), result(None), result("cat")]
    assert agreement(ours, theirs) == {"agreed": 1, "disagreed": 1, "failed": 2}


def played(shadows: Shadows, copies: int, *names: str) -> list[Shadowed]:
    told: list[Shadowed] = []
    shadows.watch = told.append
    for _ in range(copies):
        shadows.copy(CHOICE, {"top_k": 5, "sizes": [3]}, [b"img"], answer(*names))
    return told


def test_a_copy_asks_for_the_first_label_alone_and_tells_what_came_of_it() -> None:
    asked: list[tuple[str, int, dict[str, Any]]] = []

    async def send(name: str, version: int, fields: dict[str, Any], payload: Sequence[bytes]) -> dict[str, Any]:
        asked.append((name, version, fields))
        return answer("dog")

    async def main() -> list[Shadowed]:
        shadows = Shadows(send)
        told = played(shadows, 1, "cat")
        assert told == []  # whoever asked has gone on before anything was sent
        await shadows.idle()
        shadows.copy(Choice(model="toy", version=1), {}, [], answer("cat"))  # has no shadow
        await shadows.idle()
        return told

    told = asyncio.run(main())
    assert asked == [("toy", 2, {"top_k": 1, "sizes": [3], "outputs": ()})]
    assert told == [Shadowed("toy", 1, 2, {"disagreed": 1})]


def test_a_shadow_that_fails_is_counted_and_nothing_more() -> None:
    async def send(*_: object) -> dict[str, Any]:
        raise EngineUnavailable("it is not ready")

    async def main() -> list[Shadowed]:
        shadows = Shadows(send)
        told = played(shadows, 1, "cat", "dog")
        await shadows.idle()
        return told

    assert asyncio.run(main()) == [Shadowed("toy", 1, 2, {"failed": 2})]


def test_copies_for_a_shadow_that_is_too_slow_are_dropped() -> None:
    async def main() -> list[Shadowed]:
        go = asyncio.Event()

        async def send(*_: object) -> dict[str, Any]:
            await go.wait()
            return answer("cat")

        shadows = Shadows(send)
        told = played(shadows, shadow._MOST_COPIES + 3, "cat")
        assert told == [Shadowed("toy", 1, 2, {"dropped": 1})] * 3
        go.set()
        await shadows.idle()
        told += played(shadows, 1, "cat")
        await shadows.close()  # what is under way then is not waited for
        return told

    told = asyncio.run(main())
    assert [dict(each.images) for each in told[3:]] == [{"agreed": 1}] * shadow._MOST_COPIES


def test_copies_are_bounded_by_their_bytes() -> None:
    async def main() -> list[Shadowed]:
        async def send(*_: object) -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        shadows = Shadows(send)
        told: list[Shadowed] = []
        shadows.watch = told.append
        large = [bytes(shadow._MOST_BYTES)]
        for _ in range(2):
            shadows.copy(CHOICE, {}, large, answer("cat"))
        await shadows.close()
        return told

    assert asyncio.run(main()) == [Shadowed("toy", 1, 2, {"dropped": 1})]


def test_tensors_which_are_prepared_for_one_version_are_copied_to_no_other(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        logits = {"name": "logits", "shape": [1, 0]}
        answers = {"classify": DONE, "infer": {**DONE, "tensors": [logits]}}
        socket = await scene.engine("engine", lambda header: answers[header["op"]])
        both = [Route(model="toy", version=n, state=EngineState.READY, socket=socket, device="cpu") for n in (1, 2)]
        splits = {"toy": {"production": Split(shadow=2)}}
        Routes(engines=tuple(both), aliases={"toy": {"production": 1}}, splits=splits).write(scene.layout.routes)
        told: list[Shadowed] = []
        scene.engines.shadows.watch = told.append
        for kind in TensorInput:
            await scene.engines.infer("toy", b"x", kind=kind, shape=[1], outputs=[Output.LOGITS], timeout=10)
        await scene.engines.shadows.idle()
        assert (told, len(scene.headers)) == ([], 2)
        await scene.engines.classify("toy", [b"x"], timeout=10)
        await scene.engines.shadows.idle()
        assert [header["op"] for header in scene.headers] == ["infer", "infer", "classify", "classify"]

    with_scene(tmp_path, test)
