"""Server-sent events, read line by line (WHATWG HTML, section 9.2.6)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")  # a \r at the end may be the first half of \r\n


@dataclass(frozen=True)
class Message:
    """One dispatched message. `id` is the last id seen, which a message without one inherits."""

    id: str
    event: str
    data: str


def lines_of(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, without their ends: LF, CRLF or CR. One that was cut off is dropped.

    Unicode knows more line ends, and so does str.splitlines; here they are part of the text.
    """
    kept: list[str] = []  # pieces of a line that is not whole yet
    for chunk in chunks:
        before = kept.pop() if kept and kept[-1].endswith("\r") else ""
        *whole, rest = _LINE_END.split(before + chunk)
        for line in whole:
            yield "".join([*kept, line])
            kept.clear()
        if rest:
            kept.append(rest)


def messages(lines: Iterable[str], *, last_id: str = "") -> Iterator[Message]:
    """The messages in `lines` (without line ends). Comments are dropped, and so is a message that was cut off."""
    event, data = "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Message(last_id, event or "message", "\n".join(data))
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                event = value
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                last_id = value
