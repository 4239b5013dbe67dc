"""A file from the server: whole and proven by its SHA-256, or absent; goes on where a connection broke."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from resnetd.errors import Refused, Unreachable

_ATTEMPTS = 5  # in a row without a new byte
_PAUSE_SECONDS = 0.5
_STALLED_SECONDS = 60.0


def save(
    http: httpx.Client,
    artifact: Mapping[str, Any],
    target: Path,
    *,
    refuse: Callable[[httpx.Response], Exception],
    on_bytes: Callable[[int], None],
) -> None:
    """Download what `artifact` describes to `target`, in place of what is there.

    `artifact` has `name`, `bytes`, `sha256` and `href`, as an entry of a job's artifacts; its ETag is the SHA-256.
    `refuse` makes the exception of an answer that is no success; `on_bytes` gets the size of each new piece. Raises
    Unreachable where the connection breaks again and again, Refused where the bytes are not those that were promised.
    """
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    headers = {"If-Range": f'"{artifact["sha256"]}"', "Accept-Encoding": "identity"}
    attempts, done, digest = _ATTEMPTS, 0, hashlib.sha256()
    try:
        with part.open("wb") as file:
            while done < artifact["bytes"]:
                try:
                    ranged = {**headers, "Range": f"bytes={done}-"} if done else headers
                    timeout = httpx.Timeout(_STALLED_SECONDS, connect=5.0)
                    with http.stream("GET", artifact["href"], headers=ranged, timeout=timeout) as response:
                        if not response.is_success:
                            response.read()
                            raise refuse(response)
                        if done and response.status_code != httpx.codes.PARTIAL_CONTENT:
                            raise Refused("The file has changed while it was downloaded.", "Download it again.")
                        for piece in response.iter_bytes():
                            file.write(piece)
                            digest.update(piece)
                            done, attempts = done + len(piece), _ATTEMPTS
                            on_bytes(len(piece))
                except httpx.TransportError as error:
                    attempts -= 1
                    if not attempts:
                        raise Unreachable(str(http.base_url), str(error) or type(error).__name__) from error
                    time.sleep(_PAUSE_SECONDS)
        if digest.hexdigest() != artifact["sha256"]:
            raise Refused(f"{artifact['name']} did not arrive as the server has it.", "Download it again.")
        part.replace(target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
