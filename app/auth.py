"""Who may call what: each route names its scope with `needs`, and a test holds that none goes without.

On a loopback address no key is needed, but a wrong key is still refused, and a request without one must be for a
loopback host name and from a loopback page: a foreign page in the same browser gets nothing done (DNS rebinding, CSRF).
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.params import Depends
from fastapi.security import HTTPBearer

from app.problems import ForbiddenError, UnauthorizedError
from store.keys import Key, KeyRing, Scope
from store.loopback import is_loopback

bearer = HTTPBearer(auto_error=False, description="A key made by `resnetd keys create`; not needed on loopback.")
_HINT = f"Send `Authorization: Bearer <key>`; make one with `resnetd keys create --scope {'|'.join(Scope)}`."


@lru_cache(maxsize=64)  # nearly all requests come with the same one
def _is_local(address: str) -> bool:
    """Whether a header `Host` or `Origin` names this machine."""
    try:
        return is_loopback(urlsplit(address if "//" in address else f"//{address}").hostname or "")
    except ValueError:
        return False


class Gate:
    """Decides about one request's headers."""

    def __init__(self, keys: KeyRing, *, keyless: bool) -> None:
        self._keys = keys
        self._keyless = keyless

    def _key(self, authorization: str) -> Key | None:
        kind, _, secret = authorization.partition(" ")
        return self._keys.find(secret.strip()) if kind.lower() == "bearer" else None

    def holder(self, authorization: str | None) -> str | None:
        """The id of the key that a request came with; None without one that is known."""
        key = self._key(authorization or "")
        return key.id if key else None

    def check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Whether a request with these headers may do what asks for `scope`.

        Raises UnauthorizedError (no or unknown key), ForbiddenError (scope too small, foreign host or origin).
        """
        authorization = headers.get("authorization")
        if authorization is None:
            if not self._keyless:
                raise UnauthorizedError("key_missing", "This server needs an API key.", hint=_HINT)
            self._check_local(headers)
            return
        key = self._key(authorization)
        if key is None:
            raise UnauthorizedError("key_unknown", "The API key is not known here.", hint=_HINT)
        if not key.scope.includes(scope):
            raise ForbiddenError(
                "scope_missing",
                f"This needs the scope `{scope}`; the key has `{key.scope}`.",
                hint=f"Make a key with `resnetd keys create --scope {scope}`.",
            )

    @staticmethod
    def _check_local(headers: Mapping[str, str]) -> None:
        for header in ("Host", "Origin"):
            value = headers.get(header.lower())
            if value is not None and not _is_local(value):
                raise ForbiddenError(
                    "foreign_host",
                    f"Without a key this server answers requests of this machine only; {header} is another one.",
                    hint="Call it as localhost, or send an API key.",
                )


def _checker(scope: Scope) -> Callable[[Request], Awaitable[None]]:
    async def checked(request: Request) -> None:
        request.app.state.edge.gate.check(scope, request.headers)

    checked.scope = scope  # type: ignore[attr-defined]  # read by the test that every route has a scope
    return checked


_CHECKERS = {scope: _checker(scope) for scope in Scope}


def needs(scope: Scope) -> list[Depends]:
    """The dependencies of a route that asks for `scope`: the check, and the scheme that OpenAPI shows."""
    return [Depends(_CHECKERS[scope]), Security(bearer)]


def scope_of(route: object) -> Scope | None:
    """The scope that a route declared, None where it did not."""
    for dependency in getattr(route, "dependencies", ()):
        scope = getattr(dependency.dependency, "scope", None)
        if isinstance(scope, Scope):
            return scope
    return None
