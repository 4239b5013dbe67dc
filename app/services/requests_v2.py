"""What a request of the Open Inference Protocol asks for, from its body. Nothing here waits for anybody."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from app.inference.protocol import Output, TensorInput
from app.problems import BadRequestError, TooLargeError, field_errors
from app.schemas.inference_v2 import AskedOutput, InferRequest, InputTensor
from app.services.tensors_v2 import read_images, read_numbers, refused, split_body, take_binary

IMAGE = "image"
DATATYPES = {IMAGE: "BYTES", TensorInput.PIXELS.value: "UINT8", TensorInput.NORMALISED.value: "FP32"}
_MOST_IN_JSON = 4_000_000  # values: as Python's objects they take up to thirty times the bytes of their text
_FOREIGN = ("shared_memory_region", "sequence_id", "priority")  # what a client must not believe to be followed


@dataclass(frozen=True)
class Limits:
    """Of one request: images, bytes of each image's file, and bytes of a tensor, which in JSON may be shorter."""

    images: int
    image_bytes: int
    tensor_bytes: int


@dataclass(frozen=True)
class Wanted:
    """An output; `classes` > 0: that many of its best as strings instead of all values."""

    name: Output
    classes: int
    binary: bool


@dataclass(frozen=True)
class Files:
    """Images as they lie on a disk."""

    files: list[bytes]


@dataclass(frozen=True)
class Prepared:
    """Images that the client has prepared: values little-endian, in C order."""

    kind: TensorInput
    shape: list[int]
    data: bytes


@dataclass(frozen=True)
class Asked:
    """`timeout` in seconds, None where the client sets none."""

    id: str | None
    images: Files | Prepared
    outputs: tuple[Wanted, ...]
    timeout: float | None

    @property
    def names(self) -> tuple[Output, ...]:
        """The outputs that are needed, each once."""
        return tuple(dict.fromkeys(each.name for each in self.outputs))


def read_request(body: bytes, header_length: str | None, limits: Limits) -> Asked:
    """The body of `infer`. Raises BadRequestError and TooLargeError."""
    head, binary = split_body(body, header_length)
    if not head and header_length is not None:
        _check_size([bytes(binary)], limits)
        outputs = tuple(Wanted(output, classes=0, binary=True) for output in Output)
        return Asked(None, Files([bytes(binary)]), outputs, None)
    if head.count(b",") > _MOST_IN_JSON:  # counted before anything is built of them
        raise refused(f"more than {_MOST_IN_JSON:,} values in JSON", hint="Send tensors as binary data.")
    request = _parse(head)
    parts = take_binary(request.inputs, binary)
    _refuse_foreign(request)
    outputs = tuple(_wanted(each, request) for each in request.outputs or [AskedOutput(name=name) for name in Output])
    timeout = _timeout(request)
    tensor, part = _only(request.inputs), parts[0]
    if not tensor.shape:
        raise refused(f"input {tensor.name} has no shape", hint="Its first dimension counts the images.")
    if tensor.shape[0] > limits.images:
        raise refused(f"at most {limits.images} images a request", hint="Send several requests.")
    images: Files | Prepared
    if tensor.name == IMAGE:
        images = Files(read_images(tensor, part))
        _check_size(images.files, limits)
    else:
        kind = TensorInput(tensor.name)
        images = Prepared(kind, tensor.shape, read_numbers(tensor, kind, part))
        if len(images.data) > limits.tensor_bytes:  # the engine would take its sender for somebody else's
            detail = f"The tensor is larger than {limits.tensor_bytes:,} bytes."
            raise TooLargeError("body_too_large", detail, hint="Send several requests.")
    return Asked(request.id, images, outputs, timeout)


def _check_size(files: Sequence[bytes], limits: Limits) -> None:
    if any(len(each) > limits.image_bytes for each in files):
        detail = f"An image is larger than {limits.image_bytes:,} bytes."
        raise TooLargeError("image_too_large", detail, hint="Scale it down; networks see few pixels.")


def _parse(head: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate(orjson.loads(head))
    except orjson.JSONDecodeError as error:
        raise refused(f"the request is not JSON: {error}") from error
    except ValidationError as error:
        wrong = field_errors(error.errors(include_url=False, include_context=False, include_input=False), place="body")
        text = "; ".join(f"{each['pointer']}: {each['detail']}" for each in wrong)
        hint = "A request is {inputs: [{name, shape, datatype, data}], outputs: [{name}]}."
        raise BadRequestError("invalid_request", f"{text}.", hint=hint, errors=wrong) from error


def _refuse_foreign(request: InferRequest) -> None:
    tensors = (*request.inputs, *(request.outputs or ()))
    for name in _FOREIGN:
        if any(name in parameters for parameters in (request.parameters, *(each.parameters for each in tensors))):
            raise refused(f"the parameter {name!r} is not supported here")


def _timeout(request: InferRequest) -> float | None:
    """In seconds; the parameter is in microseconds."""
    wanted = request.parameters.get("timeout")
    if wanted is None:
        return None
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted <= 0:
        raise refused("`timeout` is a whole number of microseconds")
    return wanted / 1e6


def _only(inputs: Sequence[InputTensor]) -> InputTensor:
    """The request's one input."""
    known = ", ".join(f"{name} ({datatype})" for name, datatype in DATATYPES.items())
    for each in inputs:
        datatype = DATATYPES.get(each.name)
        if datatype is None:
            raise refused(f"there is no input {each.name!r}", hint=_near(each.name, DATATYPES) + f"One of: {known}.")
        if each.datatype != datatype:
            raise refused(f"input {each.name} is {datatype}, not {each.datatype}", hint=f"One of: {known}.")
    if len(inputs) > 1:
        raise refused(f"{len(inputs)} inputs are too many", hint=f"Send exactly one of: {known}.")
    return inputs[0]


def _wanted(asked: AskedOutput, request: InferRequest) -> Wanted:
    names = [output.value for output in Output]
    if asked.name not in names:
        hint = _near(asked.name, names) + f"A model gives: {', '.join(names)}."
        raise refused(f"there is no output {asked.name!r}", hint=hint)
    classes = asked.parameters.get("classification", 0)
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
        raise refused(f"output {asked.name}: `classification` is how many classes are wanted")
    if classes and asked.name == Output.EMBEDDING:
        raise refused("output embedding has no classes", hint="Ask `classification` of probabilities or logits.")
    binary = asked.parameters.get("binary_data", request.parameters.get("binary_data_output", False))
    if not isinstance(binary, bool):
        raise refused(f"output {asked.name}: `binary_data` is true or false")
    return Wanted(Output(asked.name), classes, binary)


def _near(name: str, known: Sequence[str] | dict[str, str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}? " if near else ""
