"""An event is one line of a stream for every reader, also for those that know more line ends than \\n and \\r."""

import json

from edge_kit import claimed, train

EXOTIC = "a\u2028b\u2029c\u0085d"


def test_no_character_within_an_event_ends_a_line(http, dataset, idle):
    job_id = train(http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    idle.emit(claim, 1, [("log", {"message": EXOTIC})])
    idle.succeed(claim, {})
    url = f"/v1/jobs/{job_id}/events"
    rows = http.get(url, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert EXOTIC in [json.loads(row)["data"].get("message") for row in rows]
    stream = http.get(url, headers={"Accept": "text/event-stream"}).text
    data = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert EXOTIC in [json.loads(each).get("message") for each in data]
