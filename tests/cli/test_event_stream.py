"""An event stream's lines end where its standard says so, and nowhere else."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Answer, Handler, server

from resnetd.sse import lines_of

EXOTIC = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"


def raw(text: str, *, size: int = 1 << 20) -> Answer:
    """The text as an event stream, in chunks of so many bytes."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        data = text.encode()
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_an_event_may_hold_every_character_that_unicode_calls_a_line_end(end, size):
    data = json.dumps({"message": EXOTIC}, ensure_ascii=False)
    text = end.join(["id: 5-0", "event: failed", f"data: {data}", "", ""])
    with server(raw(text, size=size)) as (client, _):
        (event,) = list(client.events("job_1"))
    assert (event.id, event.type, event.data) == ("5-0", "failed", {"message": EXOTIC})


@given(
    whole=st.lists(st.text(st.sampled_from("ab \u2028\u0085:"), max_size=4), max_size=6),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_lines_are_the_same_however_the_text_is_cut(whole, end, cuts):
    text = "".join(line + end for line in whole) + "z"
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(places)]
    assert list(lines_of(pieces)) == whole
