"""One signed message to one URL (Standard Webhooks 1.0), over a connection to an address that was checked."""

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress

import httpx

from app.services.webhook_targets import TargetForbidden, Targets, origin

MAX_ANSWER = 64 * 1024  # bytes of an answer that are read, and thrown away
_PREFIX = "whsec_"


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over id, time (seconds since 1970) and body.

    `secret` reads `whsec_<base64 of the key>`. Raises ValueError where it does not.
    """
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


class Sender:
    """Posts messages. Follows no redirect, knows no proxy, keeps no connection and no cookie.

    A kept connection is found again by its address, and might carry the message of another host at the same address.
    """

    def __init__(self, targets: Targets, *, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        self._targets = targets
        self._seconds = seconds
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(verify=tls or True, limits=limits)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int | None, str | None]:
        """The receiver's status, or None and what stood in the way; after `seconds` at the latest."""
        status: int | None = None
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._connect(url, headers, body)
                status = response.status_code
                try:
                    await _drain(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TargetForbidden, TimeoutError, OSError, ValueError) as error:
            if status is None:
                return None, _reason(error)
        return status, None

    async def _connect(self, url: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """The answer's head, from the first of the host's addresses that accepts a connection."""
        host, port = origin(url)
        addresses = await self._targets.addresses(host, port)
        named = httpx.URL(url)
        error: httpx.TransportError | None = None
        for address in addresses:
            request = httpx.Request(
                "POST",
                named.copy_with(host=address),
                headers={"host": named.netloc.decode("ascii"), **headers},
                content=body,
                # The certificate must be the name's, not the address's.
                extensions={"sni_hostname": host, "timeout": {"connect": self._seconds / len(addresses)}},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as refused:
                error = refused
        raise error or OSError(f"{host} has no address")

    async def close(self) -> None:
        await self._transport.aclose()


async def _drain(response: httpx.Response) -> None:
    """Let the receiver say what it wants to say, up to a limit; undecoded, so that nothing unpacks."""
    read = 0
    with suppress(httpx.HTTPError):
        async for piece in response.aiter_raw():
            read += len(piece)
            if read > MAX_ANSWER:
                return


def _reason(error: Exception) -> str:
    """Short, for whoever asked for the webhook: without the address that was tried."""
    match error:
        case TargetForbidden():
            return str(error)
        case TimeoutError() | httpx.TimeoutException():
            return "no answer in time"
        case socket.gaierror():
            return "the host has no address"
        case httpx.ConnectError() if "SSL" not in str(error):
            return "no connection"
        case _:
            return f"{type(error).__name__}: {error}"[:200]
