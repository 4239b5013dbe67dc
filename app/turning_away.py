"""Who is turned away before the application is asked: the engine that would compute for him is full.

While it is, most requests end here, and what each of them costs is taken from those that are answered. So this is asked
by the protocol, with the request's head and whatever has come of its body, and answers with a whole response.
"""

import time

from starlette.types import Scope

from app.account import Account, request_id_for
from app.doorkeeper import Doorkeeper
from app.responses import head_of, tell

TURNING_AWAY = "turning_away"  # where the application's lifespan puts it


class TurningAway:
    """Of one HTTP process."""

    def __init__(self, doorkeeper: Doorkeeper, account: Account) -> None:
        self._doorkeeper = doorkeeper
        self._account = account

    def answer(self, scope: Scope, beginning: bytes) -> tuple[bytes, bytes] | None:
        """A response's head without its last line, and its body; None for a request that the application is to have.

        `beginning`: what has come of the request's body.
        """
        began = time.perf_counter()
        asked = self._doorkeeper.asked(scope)
        problem = None if asked is None else self._doorkeeper.refusal(scope, asked, beginning)
        if asked is None or problem is None:
            return None
        request_id, scope["template"] = request_id_for(scope["headers"]), asked.template
        scope["request_id"] = request_id
        trace = self._account.trace(scope, scope["method"])
        told = tell(problem, path=scope["path"], request_id=request_id)
        headers = {
            "content-type": told.media_type,
            "content-length": str(len(told.body)),
            **problem.headers,
            "x-request-id": request_id,
            "x-content-type-options": "nosniff",
        }
        self._account.soon(scope, scope["method"], told.status, time.perf_counter() - began, trace)
        return head_of(told.status, headers), told.body
