"""multipart/form-data read piece by piece, with bounds on parts and headers. Knows neither HTTP nor files."""

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.problems import BadRequestError, InvalidError

_MAX_HEADERS = 16  # of one part
_MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class PartBegin:
    """A part's head. A part is a file when it has a file name or a media type that is not text."""

    name: str
    filename: str | None
    content_type: str

    @property
    def is_file(self) -> bool:
        kind = self.content_type.partition(";")[0].strip().lower()
        return self.filename is not None or (kind != "" and not kind.startswith("text/") and kind != "application/json")


@dataclass(frozen=True)
class PartData:
    data: bytes


@dataclass(frozen=True)
class PartEnd:
    pass


Event = PartBegin | PartData | PartEnd


class MultipartReader:
    """`feed` takes bytes and returns what they completed; `close` holds that the last boundary has come."""

    def __init__(self, content_type: str, *, max_parts: int) -> None:
        """Raises BadRequestError where the header names no usable boundary."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise _malformed("the Content-Type header names no boundary")
        self._max_parts = max_parts
        self._parts = 0
        self._events: list[Event] = []
        self._headers: dict[bytes, bytes] = {}
        self._field = bytearray()
        self._value = bytearray()
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def feed(self, data: bytes) -> list[Event]:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from error
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Raises BadRequestError where the body ended before its last boundary."""
        if not self._ended:
            raise _malformed("the body ends before its last boundary")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            hint = "Send several requests."
            raise InvalidError("too_many_parts", f"The form has more than {self._max_parts} parts.", hint=hint)
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        filename = options.get(b"filename")
        self._events.append(
            PartBegin(
                name=options.get(b"name", b"").decode("utf-8", "replace"),
                filename=None if filename is None else plain_filename(filename.decode("utf-8", "replace")),
                content_type=self._headers.get(b"content-type", b"").decode("latin-1"),
            )
        )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _on_part_end(self) -> None:
        self._events.append(PartEnd())

    def _on_end(self) -> None:
        self._ended = True


def plain_filename(name: str) -> str:
    """A client's file name for showing: the last component, printable, at most 200 characters. Never a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:200]


def _malformed(reason: str) -> BadRequestError:
    hint = "Let the client build the form: `curl -F file=@cat.jpg …`."
    return BadRequestError("invalid_multipart", f"The form cannot be read: {reason}.", hint=hint)
