"""Streams that break off, pages of a history, and what the client makes of messages."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import broken, json_answer, server, stream

from resnetd.errors import Problem
from resnetd.event_stream import Event
from resnetd.sse import Message, messages


def test_a_stream_that_breaks_off_is_taken_up_behind_the_last_whole_event():
    with server(
        stream(("1-0", "queued"), ("2-0", "running"), cut=b"id: 3-0\nevent: progress\nda"),
        broken,
        json_answer({"title": "Service Unavailable", "code": "redis_away", "detail": "", "hint": None}, 503),
        stream(("3-0", "progress"), clean=True),
        stream(clean=True),
        json_answer({"state": "running"}),
        stream(("4-0", "succeeded"), clean=True),
    ) as (client, told):
        events = list(client.events("job_1"))
    assert [event.id for event in events] == ["1-0", "2-0", "3-0", "4-0"]
    assert events[0] == Event("1-0", "queued", {"n": 1})
    asked = [headers.get("last-event-id") for _, path, headers, _ in told.requests if path.endswith("/events")]
    assert asked == [None, "2-0", "2-0", "2-0", "3-0", "3-0"]


def test_a_history_is_asked_for_as_pages_of_json():
    page = {"data": [{"id": "1-0", "type": "queued", "data": {}}], "has_more": False, "next": None}
    with server(json_answer(page)) as (client, told):
        assert list(client.history("job_1")) == [Event("1-0", "queued", {})]
    assert told.requests[0][2]["accept"] == "application/json"


def test_an_event_tells_when_it_happened():
    assert Event("1769860801250-3", "epoch", {}).at == datetime(2026, 1, 31, 12, 0, 1, 250_000, tzinfo=UTC)


def test_a_job_that_had_ended_before_the_given_event_gives_no_more_events():
    with server(stream(cut=b"event: end\ndata: {}\n\n", clean=True), json_answer({"state": "failed"})) as (
        client,
        told,
    ):
        assert list(client.events("job_1", after="9-0")) == []
    assert told.requests[0][2]["last-event-id"] == "9-0"


def test_a_stream_that_is_refused_is_a_problem():
    body = {"title": "Not Found", "code": "job_not_found", "detail": "", "hint": None}
    with server(json_answer(body, 404)) as (client, _), pytest.raises(Problem):
        list(client.events("job_1"))


def test_messages_are_read_as_the_standard_says():
    lines = ["retry: 2000", "", ": hello", "", "id: 1", "event: a", "data: {", "data:}", "", "data: 2", "", "data: cut"]
    assert list(messages(lines)) == [Message("1", "a", "{\n}"), Message("1", "message", "2")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"[1-9]\d*-\d", fullmatch=True), st.sampled_from("ab"), st.text("xy: \n"))))
def test_what_is_written_as_messages_is_read_as_them(sent):
    text = "".join(
        f"id: {at}\nevent: {kind}\n" + "".join(f"data: {part}\n" for part in data.split("\n")) + "\n: x\n\n"
        for at, kind, data in sent
    )
    assert list(messages(text.split("\n"))) == [Message(*each) for each in sent]
