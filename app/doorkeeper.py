"""Which requests are refused at the door: those to an engine that would refuse them, if it is our client who asks."""

from dataclasses import dataclass

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import Scope

from app.bodies import announced
from app.image_requests import BodyKind, body_kind
from app.problems import ProblemError
from app.routes.classification import BY_DEFAULT, BY_MODEL
from app.routes.inference_v2 import HEADER_LENGTH
from app.state import State
from models.catalog import ModelNotFound
from models.manifest import ModelDamagedError
from store import keys

_UPLOAD, _POST = frozenset({"POST", "PUT"}), frozenset({"POST"})
#: Where something is computed: what an engine is asked there, and by which methods. The routes with `admitted`, which a
#: test holds.
COMPUTING = {
    BY_DEFAULT: ("classify", _UPLOAD),
    BY_MODEL: ("classify", _UPLOAD),
    "/v1/explain": ("explain", _UPLOAD),
    "/v1/models/{name}:explain": ("explain", _UPLOAD),
    "/v1/preprocess": ("preprocess", _UPLOAD),
    "/v1/models/{name}:preprocess": ("preprocess", _UPLOAD),
    "/v2/models/{name}/infer": ("infer", _POST),
    "/v2/models/{name}/versions/{version}/infer": ("infer", _POST),
}
_ADMITTED = "let_in"  # in a request's scope: it was looked at, and its engine is not full


@dataclass(frozen=True)
class Asked:
    """An address where something is computed, and what it says of the model."""

    template: str
    name: str | None
    version: str | None

    @property
    def op(self) -> str:
        return COMPUTING[self.template][0]


class Doorkeeper:
    """Of one HTTP process. Who has no key is told so by the route, however full the engine is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._addresses = [(template, compile_path(template)[0]) for template in COMPUTING]

    def asked(self, scope: Scope) -> Asked | None:
        """Which of the addresses this is; None where it is none of them, or has no such method."""
        for template, pattern in self._addresses:
            found = pattern.match(scope["path"])
            if found is not None:
                parts = found.groupdict()
                computes = scope["method"] in COMPUTING[template][1]
                return Asked(template, parts.get("name"), parts.get("version")) if computes else None
        return None

    def refusal(self, scope: Scope, asked: Asked, beginning: bytes) -> ProblemError | None:
        """Why the request is answered with 503 at once. `beginning`: what is here of its body.

        None where it is not, or where more of the body must be seen first (`undecided`).
        """
        if scope.get(_ADMITTED):
            return None
        request = Request(scope)
        query = scope["query_string"]
        named = asked.name or (QueryParams(query).get("model") if query else None)
        ref = f"{named}@{asked.version}" if named and asked.version else named
        op = _op(request, asked)
        open_version = op == "infer" and "@" not in (ref or "")  # the body may name another one than production's
        if open_version or not self._full(request, op, ref):
            scope[_ADMITTED] = True
            return None
        if named is None:  # nobody knows who is asked before what may name a model was read
            kind = body_kind(request.headers.get("content-type", ""), beginning)
            if kind is not BodyKind.IMAGE:
                scope[_ADMITTED] = kind is not None
                return None
        return self._state.admission.refuse_full()

    @staticmethod
    def undecided(scope: Scope) -> bool:
        """Whether a request without a refusal has one or none according to what its body begins with."""
        return not scope.get(_ADMITTED)

    def _full(self, request: Request, op: str, ref: str | None) -> bool:
        """Whether the engine of who is asked is full, and it is our client who asks."""
        size = announced(request)
        if size > self._state.settings.max_request_bytes:
            return False  # it has no place there ever, which the route says
        try:
            if not self._state.engines.refusing(ref, op, size=size):
                return False
            self._state.gate.check(keys.Scope.PREDICT, request.headers)
        except (ModelNotFound, ModelDamagedError, ProblemError, OSError, ValueError):
            return False  # the route says so
        return True


def _op(request: Request, asked: Asked) -> str:
    """What the engine would be asked: of a tensor's request whose body is one image, and no JSON, to classify that."""
    one_image = asked.op == "infer" and request.headers.get(HEADER_LENGTH) == "0"
    return "classify" if one_image else asked.op
