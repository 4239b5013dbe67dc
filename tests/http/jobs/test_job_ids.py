"""What cannot be a job's id names no job, whatever else it names."""

import pytest
from edge_kit import problem, train

ODD = ["{job}:events", "{job}:deliveries", "x%00y", "job%20x", "job_\u00e4", "*"]


@pytest.mark.parametrize("odd", ODD)
def test_an_id_that_no_job_can_have_is_not_found_whatever_is_asked(http, dataset, odd):
    job = train(http, dataset).json()["id"]
    url = f"/v1/jobs/{odd.format(job=job)}"
    answers = [
        http.get(url),
        http.delete(url),
        http.patch(url, json={"priority": "low"}),
        *(http.get(f"{url}/{part}") for part in ("artifacts", "deliveries")),
        *(http.get(f"{url}/events", headers={"Accept": accept}) for accept in ("application/json", "*/*")),
        *(http.post(f"{url}/{verb}") for verb in ("cancel", "pause", "resume", "finish", "checkpoint", "retry")),
        http.post(f"{url}/deliveries/1-1/redeliver"),
    ]
    for answer in answers:
        problem(answer, 404, "job_not_found")
