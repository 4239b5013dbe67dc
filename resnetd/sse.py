"""Server-sent events, read line by line (WHATWG HTML, section 9.2.6)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One dispatched message. `id` is the last id seen, which a message without one inherits."""

    id: str
    event: str
    data: str


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
