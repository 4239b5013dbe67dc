"""Files as answers: ranges that cannot be given are problems like any other, and HEAD reads no file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app.problems import BadRequestError, ProblemError
from app.responses import problem_response

_BAD_RANGE = {400, 416}


class FileDownload(FileResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("headers_only"):
            scope = {**scope, "method": "HEAD"}
        refused: Message | None = None

        async def send_file(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in _BAD_RANGE:
                refused = message
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, send_file)
        if refused is not None:
            problem = _problem(refused["status"], Headers(raw=refused["headers"]).get("content-range"))
            await problem_response(Request(scope), problem)(scope, receive, send)


class MadeFileDownload(FileDownload):
    """A file that was made for this answer; `discard` is called when it has been sent, or nobody takes it any more."""

    def __init__(self, path: Path, *, discard: Callable[[], None], **options: Any) -> None:  # noqa: ANN401 - Starlette's
        super().__init__(path, **options)
        self._discard = discard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._discard()


def _problem(status: int, content_range: str | None) -> ProblemError:
    """Of a Range that is malformed (400) or beyond the file (416, with the file's length in Content-Range)."""
    if content_range is None or status != 416:
        return BadRequestError("invalid_range", "The Range cannot be read.", hint="For example: Range: bytes=0-1023")
    length = re.sub(r"[^0-9]", "", content_range)
    return ProblemError(
        "range_not_satisfiable",
        f"The file has {length} bytes, and none in this Range.",
        hint="Ask for a Range within the file, or for all of it without one.",
        headers={"Content-Range": content_range},
        status=416,
    )
