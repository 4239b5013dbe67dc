"""What a request of the Open Inference Protocol asks for, from its body. Nothing here waits for anybody."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from app.inference.protocol import Output, TensorInput
from app.problems import BadRequestError, TooLargeError, body_errors, told
from app.schemas.inference_v2 import AskedOutput, InferRequest, InputTensor
from app.services.tensors_v2 import read_images, read_numbers, refused, split_body, take_binary
from models.nearest import did_you_mean

IMAGE = "image"
DATATYPES = {IMAGE: "BYTES", TensorInput.PIXELS.value: "UINT8", TensorInput.NORMALISED.value: "FP32"}
MOST_IN_JSON = 4_000_000  # values: as Python's objects they take up to thirty times the bytes of their text
_MOST_MEMBERS = 1000  # of all objects in a request; base64 has no colon
_FORM = "A request is {inputs: [{name, shape, datatype, data}], outputs: [{name}]}."
_FOREIGN = ("shared_memory_region", "sequence_id", "priority")  # what a client must not believe to be followed
_UNSET = (None, 0, "")  # what Triton takes for nothing said


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
    """`timeout` in seconds, None where the client sets none; so are `model` and `version` where the body names none."""

    id: str | None
    images: Files | Prepared
    outputs: tuple[Wanted, ...]
    timeout: float | None
    model: str | None = None
    version: str | None = None

    @property
    def names(self) -> tuple[Output, ...]:
        """The outputs that are needed, each once."""
        return tuple(dict.fromkeys(each.name for each in self.outputs))

    def named(self, address: str) -> str:
        """The model of the address, `mine` or `mine@3`, with what the body adds: a version.

        Raises BadRequestError where they contradict each other.
        """
        name, _, selector = address.partition("@")
        model, _, behind = (self.model or name).partition("@")
        selectors = {each for each in (selector, behind, self.version) if each}
        if model != name or len(selectors) > 1:
            said = " ".join(each for each in (self.model, self.version) if each)
            hint = "Name model and version in the address or in the body, or the same in both."
            raise refused(f"the address says {address}, the body {said}", hint=hint)
        return f"{name}@{selectors.pop()}" if selectors else address


def read_request(body: bytes, header_length: str | None, limits: Limits) -> Asked:
    """The body of `infer`. Raises BadRequestError and TooLargeError."""
    head, binary = split_body(body, header_length)
    if not head and header_length is not None:
        _check_size([bytes(binary)], limits)
        outputs = tuple(Wanted(output, classes=0, binary=True) for output in Output)
        return Asked(None, Files([bytes(binary)]), outputs, None)
    if head.count(b",") > MOST_IN_JSON:  # counted before anything is built of them
        raise refused(f"more than {MOST_IN_JSON:,} values in JSON", hint="Send tensors as binary data.")
    if head.count(b":") > _MOST_MEMBERS:  # each that is not known would be an error of its own
        raise refused(f"more than {_MOST_MEMBERS:,} members in the JSON's objects", hint=_FORM)
    request = _parse(head)
    parts = take_binary(request.inputs, binary)
    _refuse_foreign(request)
    outputs = tuple(_wanted(each, request) for each in request.outputs or [AskedOutput(name=name) for name in Output])
    timeout = _timeout(request)
    tensor, part = _only(request.inputs), parts[0]
    if not tensor.shape:
        raise refused(f"input {tensor.name} has no shape", hint="Its first dimension counts the images.")
    if tensor.shape[0] > limits.images:
        hint = f"RESNETD_MAX_IMAGES_PER_REQUEST is {limits.images}; send several requests."
        raise refused(f"at most {limits.images} images a request", hint=hint)
    images: Files | Prepared
    if tensor.name == IMAGE:
        images = Files(read_images(tensor, part))
        _check_size(images.files, limits)
    else:
        kind = TensorInput(tensor.name)
        images = Prepared(kind, tensor.shape, read_numbers(tensor, kind, part))
        if len(images.data) > limits.tensor_bytes:  # the engine would take its sender for somebody else's
            detail = f"The tensor is larger than {limits.tensor_bytes:,} bytes."
            hint = f"RESNETD_MAX_REQUEST_BYTES is {limits.tensor_bytes:,}; send several requests."
            raise TooLargeError("body_too_large", detail, hint=hint)
    version = None if request.model_version is None else str(request.model_version)
    return Asked(request.id, images, outputs, timeout, request.model_name, version)


def _check_size(files: Sequence[bytes], limits: Limits) -> None:
    if any(len(each) > limits.image_bytes for each in files):
        detail = f"An image is larger than {limits.image_bytes:,} bytes."
        hint = f"RESNETD_MAX_IMAGE_BYTES is {limits.image_bytes:,}; scale it down: networks see few pixels."
        raise TooLargeError("image_too_large", detail, hint=hint)


def _parse(head: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate(orjson.loads(head))
    except orjson.JSONDecodeError as error:
        raise refused(f"the request is not JSON: {error}") from error
    except ValidationError as error:
        errors = body_errors(error)
        raise BadRequestError("invalid_request", f"{told(errors)}.", hint=_FORM, errors=errors) from error


def _refuse_foreign(request: InferRequest) -> None:
    said = [each.parameters for each in (request, *request.inputs, *(request.outputs or ()))]
    for name in _FOREIGN:
        if any(parameters.get(name) not in _UNSET for parameters in said):
            raise refused(f"the parameter {name!r} is not supported here")


def _timeout(request: InferRequest) -> float | None:
    """In seconds; the parameter is in microseconds, of which 0 are none that was set."""
    wanted = request.parameters.get("timeout")
    if wanted is None:
        return None
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise refused("`timeout` is a whole number of microseconds")
    return wanted / 1e6 or None


def _only(inputs: Sequence[InputTensor]) -> InputTensor:
    """The request's one input."""
    known = ", ".join(f"{name} ({datatype})" for name, datatype in DATATYPES.items())
    for each in inputs:
        datatype = DATATYPES.get(each.name)
        if datatype is None:
            hint = did_you_mean(each.name, DATATYPES, quote="'") + f"One of: {known}."
            raise refused(f"there is no input {each.name!r}", hint=hint)
        if each.datatype != datatype:
            raise refused(f"input {each.name} is {datatype}, not {each.datatype}", hint=f"One of: {known}.")
    if len(inputs) > 1:
        raise refused(f"{len(inputs)} inputs are too many", hint=f"Send exactly one of: {known}.")
    return inputs[0]


def _wanted(asked: AskedOutput, request: InferRequest) -> Wanted:
    names = [output.value for output in Output]
    if asked.name not in names:
        hint = did_you_mean(asked.name, names, quote="'") + f"A model gives: {', '.join(names)}."
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
