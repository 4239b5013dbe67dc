"""Webhooks as clients meet them: asked for with a job, looked at, sent again; and a killed HTTP process loses none."""

import signal
import subprocess

from edge_kit import claimed, problem, train
from hook_receiver import SECRET, Receiver, deliveries_settled, verified
from http_process import http_process
from running import RESNETD

from jobs import keys
from jobs.deliveries import Deliveries
from jobs.ledger import Ledger
from jobs.model import JobError, Kind, State, Webhook


def test_a_job_that_was_asked_for_with_a_webhook_tells_its_end_and_tells_it_again(http, server, dataset):
    with Receiver() as receiver:
        webhook = {"url": receiver.url, "events": ["running", "cancelled"], "secret": SECRET}
        job = train(http, dataset, webhook=webhook).json()
        http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        _, headers, body = receiver.next()
        message = verified(headers, body)
        assert message["type"] == "job.cancelled"
        assert message["data"] == http.get(f"/v1/jobs/{job['id']}").json()
        assert SECRET.encode() not in body
        found = deliveries_settled(http, job["id"])
        (attempt,) = found["data"]
        assert (attempt["type"], attempt["attempt"], attempt["outcome"]) == ("job.cancelled", 1, "delivered")
        assert (found["has_more"], found["next"]) == (False, None)

        for delivery in (attempt["delivery"], headers["webhook-id"]):
            again = http.post(f"/v1/jobs/{job['id']}/deliveries/{delivery}/redeliver")
            assert again.status_code == 202
            _, repeated, body = receiver.next()
            assert repeated["webhook-id"] == headers["webhook-id"]
            verified(repeated, body)
            deliveries_settled(http, job["id"])
    assert len(deliveries_settled(http, job["id"])["data"]) == 3
    shown = subprocess.run(
        [RESNETD, "jobs", "deliveries", job["id"], "--server", server.url], capture_output=True, text=True, check=True
    )
    assert [line.split("\t")[1:3] + line.split("\t")[4:6] for line in shown.stdout.splitlines()] == [
        ["job.cancelled", "1", "delivered", "204"]
    ] * 3


def test_what_a_crashed_process_wrote_is_shown_to_who_asks_and_sent_to_nobody(http, dataset, idle):
    with Receiver() as receiver:
        job_id = train(http, dataset, webhook={"url": receiver.url, "secret": SECRET}).json()["id"]
        idle.fail(claimed(idle, job_id), JobError(code="crash_loop", message="it died", log="/home/me/secret.py"))
        _, headers, body = receiver.next()
        assert verified(headers, body)["data"]["error"]["message"] == "it died"
        assert b"secret.py" not in body
        deliveries_settled(http, job_id)
    assert http.get(f"/v1/jobs/{job_id}").json()["error"]["log"] == "/home/me/secret.py"


def test_what_is_not_there_has_no_deliveries(http, ledger):
    problem(http.get("/v1/jobs/job_none/deliveries"), 404, "job_not_found")
    problem(http.post("/v1/jobs/job_none/deliveries/1-1/redeliver"), 404, "job_not_found")
    job_id = ledger.submit(Kind.TRAIN, {}).job_id
    assert http.get(f"/v1/jobs/{job_id}/deliveries").json() == {
        "data": [],
        "pending": [],
        "has_more": False,
        "next": None,
    }
    problem(http.post(f"/v1/jobs/{job_id}/deliveries/1-1/redeliver"), 404, "delivery_not_found")


def test_a_webhook_that_leads_inside_is_refused_with_the_job(http, dataset):
    for url in ("http://169.254.169.254/latest", "http://10.0.0.1/", "ftp://example.org/", "http://a:b@example.org/"):
        answer = train(http, dataset, webhook={"url": url})
        assert answer.status_code == 422, url
        assert answer.json()["errors"][0]["pointer"] == "#/webhook/url"


def test_a_message_in_the_hands_of_a_killed_process_is_sent_by_the_next_one(layout, redis_url, redis):
    ledger = Ledger(redis)
    with Receiver(0) as receiver:
        job_id = ledger.submit(Kind.TRAIN, {}, webhook=Webhook(url=receiver.url, secret=SECRET)).job_id
        ledger.cancel(job_id)
        with http_process(layout, redis_url) as (first, _):
            _, headers, _ = receiver.next()
        assert first.returncode == -signal.SIGKILL
        (pending,) = Deliveries(redis).pending(job_id)
        redis.zadd(keys.DELIVERIES, {f"{job_id} {pending.delivery}": 1})  # as if the dead one's time had passed
        with http_process(layout, redis_url) as (second, _):
            _, repeated, body = receiver.next()
            assert verified(repeated, body)["data"]["state"] == State.CANCELLED
            assert repeated["webhook-id"] == headers["webhook-id"]
            second.terminate()
            assert second.wait(20) == 0
    (attempt,) = Deliveries(redis).log(job_id)
    assert (attempt.attempt, attempt.outcome) == (1, "delivered")
