"""What can go wrong between the HTTP edge and an engine.

InferenceError
├── EngineUnavailable    no engine answers for this model                       503
│   └── EngineStarting   one is being started; it is worth asking again soon    503, Retry-After
├── EngineOverloaded     it holds as many images as it may                      503, Retry-After
├── DeadlineExceeded     the time that the request had is over                  504
├── RequestRefused       this model cannot be asked so                          422
│   └── TooManyLabels    the answer would have no room for them                 422
└── EngineFailed         it could not compute an answer                         500

`models.catalog.ModelNotFound` is raised for a model that does not exist.
"""

from typing import Any

from app.inference.protocol import ErrorCode


class InferenceError(Exception):
    """`retry_after`: seconds after which it is worth asking again; None where waiting does not help."""

    retry_after: int | None = None


class EngineUnavailable(InferenceError):
    retry_after = 5


class EngineStarting(EngineUnavailable):
    retry_after = 2


class EngineOverloaded(InferenceError):
    retry_after = 1


class DeadlineExceeded(InferenceError):
    """No answer came in the request's time."""


class RequestRefused(InferenceError):
    """The request does not fit the model, such as a class that it does not have."""


class TooManyLabels(RequestRefused):
    """So many labels of so many images do not fit into one answer; `most` is the largest `top_k` that does."""

    def __init__(self, *, images: int, top_k: int, most: int) -> None:
        super().__init__(f"{top_k:,} labels for each of {images:,} images are too many for one answer")
        self.most = most


class EngineFailed(InferenceError):
    """The answer would not have been a number, or the engine met an error of its own."""


def raise_error(answer: dict[str, Any]) -> None:
    """Raises what an engine's answer says went wrong, if something did."""
    error = answer.get("error")
    if error is None:
        return
    if error["code"] == ErrorCode.OVERLOADED:
        raise EngineOverloaded(error["message"])
    if error["code"] == ErrorCode.DEADLINE:
        raise DeadlineExceeded(error["message"])
    if error["code"] == ErrorCode.REFUSED:
        raise RequestRefused(error["message"])
    raise EngineFailed(error["message"])
