"""Which of several media types an Accept header likes best."""

import pytest
from edge_kit import IMAGE, problem

from app.accept import prefer

OFFERED = {"image/png": "png", "application/json": "json", "application/x-ndjson": "lines"}


@pytest.mark.parametrize(
    ("accept", "liked"),
    [
        ("", "png"),
        ("*/*", "png"),
        ("*/*, image/png;q=0", "json"),
        ("image/png;q=0, */*", "json"),
        ("image/*;q=0, */*;q=0.1", "json"),
        ("application/*;q=0.5, application/json;q=0, */*;q=0.1", "lines"),
        ("*/*;q=0.8, image/png;q=0.2", "json"),
        ("application/json, */*", "json"),  # named, and not only meant, too
        ("application/x-ndjson, application/json", "json"),  # both are: the one that is offered first
        ("image/png;q=0", None),
        ("*/*;q=0", None),
        ("text/html", None),
    ],
)
def test_of_the_ranges_that_take_a_media_type_in_the_most_specific_counts(accept: str, liked: str | None) -> None:
    assert prefer(accept, OFFERED) == liked


def test_who_takes_anything_but_a_picture_gets_json(http):
    answer = http.post("/v1/preprocess", content=IMAGE, headers={"Accept": "*/*, image/png;q=0"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    problem(http.post("/v1/preprocess", content=IMAGE, headers={"Accept": "*/*;q=0"}), 406, "not_acceptable")
