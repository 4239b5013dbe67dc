"""The sending of webhooks, against a receiver that is a real HTTP server."""

import asyncio
import shutil
import ssl
import subprocess
import threading

import pytest
from hook_receiver import SECRET, Receiver, verified

from app.services.webhook_targets import TargetForbidden, Targets
from app.services.webhooks import PAUSES, SLOW_CONCURRENCY, Webhooks
from jobs.deliveries import Deliveries
from jobs.ledger import Ledger
from jobs.model import Kind, State, Webhook
from jobs.redis import connect

HERE = Targets(loopback=True)
QUICK = (0.0, 0.0)  # three attempts without a wait between them


@pytest.fixture
def ledger(redis_url):
    """In a Redis that no HTTP process looks at."""
    client = connect(redis_url)
    yield Ledger(client)
    client.close()


@pytest.fixture
def cancelled(ledger):
    """A function: a job that has ended, with somebody to tell of it."""

    def make(url, **changes):
        job_id = ledger.submit(Kind.TRAIN, {}, webhook=Webhook(url=url, secret=SECRET, **changes)).job_id
        ledger.cancel(job_id)
        return job_id

    return make


@pytest.fixture
def log_of(ledger, redis_url):
    """A function: the attempts for a job, oldest first, once nothing is left to be sent."""
    deliveries = Deliveries(ledger.redis)

    def look(job_id, targets=HERE, *, dispatchers=1, until=None, **changes):
        options = {"pauses": QUICK, "attempt_seconds": 5.0} | changes
        done = until or (lambda: not deliveries.pending(job_id))

        async def go():
            webhooks = [Webhooks(redis_url, targets, lambda job: {"id": job.id}, **options) for _ in range(dispatchers)]
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                stop = asyncio.Event()
                for each in webhooks:
                    group.create_task(run(each, stop))
                while not done():  # noqa: ASYNC110 - the answer is in Redis, which wakes nobody
                    await asyncio.sleep(0.01)
                stop.set()

        asyncio.run(go())
        return deliveries.log(job_id)[::-1]

    return look


async def run(webhooks, stop):
    async with webhooks.running():
        await stop.wait()


def test_a_message_is_signed_and_tells_the_job(cancelled, log_of):
    with Receiver() as receiver:
        job_id = cancelled(receiver.url)
        (attempt,) = log_of(job_id)
        path, headers, body = receiver.next()
    message = verified(headers, body)
    assert path == "/hook?for=me"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert (message["type"], message["data"]) == ("job.cancelled", {"id": job_id})
    assert headers["webhook-id"] == f"{job_id}.{attempt.delivery}"
    assert message["timestamp"].endswith("Z")
    assert (attempt.outcome, attempt.status, attempt.state) == ("delivered", 204, State.CANCELLED)


def test_a_message_is_sent_again_under_the_same_id_until_it_is_taken(cancelled, log_of):
    with Receiver(500, None, 201, body=b"thanks") as receiver:
        log = log_of(cancelled(receiver.url))
        got = [receiver.next() for _ in range(3)]
    assert [(each.attempt, each.outcome, each.status) for each in log] == [
        (1, "retry", 500),
        (2, "retry", None),
        (3, "delivered", 201),
    ]
    assert "RemoteProtocolError" in str(log[1].error)
    assert len({headers["webhook-id"] for _, headers, _ in got}) == 1
    for _, headers, body in got:
        verified(headers, body)


def test_a_receiver_that_never_answers_holds_up_no_other(cancelled, log_of, ledger):
    deliveries = Deliveries(ledger.redis)
    with Receiver(*[0] * 100) as dead, Receiver() as alive:
        first, later = cancelled(dead.url), []

        def told():
            if not later and deliveries.log(first):  # from now on it is known to be slow
                later.extend(cancelled(dead.url) for _ in range(30))
                later.append(cancelled(alive.url))
            return later and not deliveries.pending(later[-1])

        log_of(first, until=told, attempt_seconds=2.0, pauses=(60.0,))
        assert alive.got.qsize() == 1
        assert dead.got.qsize() <= 1 + SLOW_CONCURRENCY


def test_after_the_last_pause_a_message_is_given_up(cancelled, log_of):
    with Receiver(503, 503, 503, 503) as receiver:
        log = log_of(cancelled(receiver.url))
        assert receiver.got.qsize() == 3
    assert [each.outcome for each in log] == ["retry", "retry", "given_up"]


def test_the_pauses_are_5_s_30_s_2_min_10_min_1_h_and_6_h(cancelled, log_of, ledger):
    with Receiver(500) as receiver:
        job_id = cancelled(receiver.url)
        (attempt,) = log_of(job_id, until=lambda: Deliveries(ledger.redis).log(job_id), pauses=PAUSES)
    assert PAUSES == (5, 30, 120, 600, 3600, 21_600)
    assert attempt.next_at is not None
    assert (attempt.next_at - attempt.at).total_seconds() == 5


def test_after_gone_nothing_of_the_job_is_sent_until_somebody_asks_for_it(ledger, log_of):
    events = (State.QUEUED, State.CANCELLED)
    with Receiver(410, 410) as receiver:
        hook = Webhook(url=receiver.url, secret=SECRET, events=events)
        job_id = ledger.submit(Kind.TRAIN, {}, webhook=hook).job_id
        first = log_of(job_id)
        ledger.cancel(job_id)
        assert log_of(job_id) == first
        assert receiver.got.qsize() == 1
        assert Deliveries(ledger.redis).repeat(job_id, first[0].delivery) == "again"
        assert [each.outcome for each in log_of(job_id)] == ["gone", "gone"]


def test_a_receiver_that_says_gone_hears_no_more(cancelled, log_of):
    with Receiver(410) as receiver:
        log = log_of(cancelled(receiver.url))
        assert receiver.got.qsize() == 1
    assert [each.outcome for each in log] == ["gone"]


def test_a_redirect_is_not_followed(cancelled, log_of):
    with Receiver() as elsewhere, Receiver(302, 307, 301, location=elsewhere.url) as receiver:
        log = log_of(cancelled(receiver.url))
        assert elsewhere.got.empty()
    assert [each.status for each in log] == [302, 307, 301]


def test_a_receiver_that_does_not_answer_costs_the_time_of_one_attempt(cancelled, log_of):
    with Receiver(0) as receiver:
        first, second = log_of(cancelled(receiver.url), attempt_seconds=1.5)
    assert (first.error, first.outcome) == ("no answer in time", "retry")
    assert 1500 <= first.ms < 5000
    assert second.outcome == "delivered"


def test_of_a_long_answer_only_the_beginning_is_read(cancelled, log_of):
    with Receiver(200, body=bytes(64 << 20)) as receiver:
        (attempt,) = log_of(cancelled(receiver.url))
        assert receiver.cut.wait(10)
    assert attempt.outcome == "delivered"


def test_two_processes_share_the_work_and_send_nothing_twice(ledger, redis_url, cancelled, log_of):
    with Receiver() as receiver:
        jobs = [cancelled(receiver.url) for _ in range(40)]
        deliveries = Deliveries(ledger.redis)
        log_of(jobs[0], dispatchers=2, until=lambda: not any(deliveries.pending(each) for each in jobs))
        ids = [receiver.got.get_nowait()[1]["webhook-id"] for _ in range(receiver.got.qsize())]
    assert sorted(each.partition(".")[0] for each in ids) == sorted(jobs)


def test_what_is_under_way_when_the_process_stops_is_finished_first(cancelled, log_of):
    with Receiver(200) as receiver:
        receiver.pause = threading.Event()
        job_id = cancelled(receiver.url)
        threading.Timer(0.5, receiver.pause.set).start()
        log = log_of(job_id, until=lambda: not receiver.got.empty())
    assert [each.outcome for each in log] == ["delivered"]


def test_a_message_goes_to_the_address_that_was_checked_and_the_name_is_looked_up_once(cancelled, log_of):
    class Rebinding(Targets):
        """A name whose second look-up would lead elsewhere."""

        asked: list[str] = []  # noqa: RUF012 - of this one test

        async def addresses(self, host, port):
            self.asked.append(host)
            return ["127.0.0.1"]

    with Receiver() as receiver:
        log = log_of(cancelled(f"http://hooks.example:{receiver.port}/x"), Rebinding())
        _, headers, _ = receiver.next()
    assert (log[0].outcome, headers["host"], Rebinding.asked) == (
        "delivered",
        f"hooks.example:{receiver.port}",
        ["hooks.example"],
    )


def test_the_next_address_is_tried_when_one_cannot_be_connected_to(cancelled, log_of):
    class Two(Targets):
        async def addresses(self, host, port):
            return ["127.0.0.2", "::1", "127.0.0.1"]

    with Receiver() as receiver:
        (attempt,) = log_of(cancelled(f"http://hooks.example:{receiver.port}/x"), Two())
    assert attempt.outcome == "delivered"


def test_the_certificate_must_be_the_names_and_not_the_addresss(cancelled, log_of, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        # Python's library makes no certificates, and a key in the repository would look like a lost one.
        pytest.skip("no openssl to make a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    making = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    making += ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    subprocess.run([*making, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))

    class Hosts(Targets):
        async def addresses(self, host, port):
            return ["127.0.0.1"]

    with Receiver(tls=own) as receiver:
        (good,) = log_of(cancelled(f"https://hooks.example:{receiver.port}/x"), Hosts(), tls=trusting)
        other, *_ = log_of(cancelled(f"https://other.example:{receiver.port}/x"), Hosts(), tls=trusting)
        plain, *_ = log_of(cancelled(f"https://hooks.example:{receiver.port}/x"), Hosts())
        assert receiver.got.qsize() == 1
    assert good.outcome == "delivered"
    assert "certificate verify failed" in str(other.error)
    assert "certificate verify failed" in str(plain.error)


def test_an_address_that_is_not_public_is_never_connected_to(cancelled, log_of):
    with Receiver() as receiver:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            log = log_of(cancelled(f"http://{host}:{receiver.port}/x"), Targets())
            assert [each.outcome for each in log] == ["retry", "retry", "given_up"]
            assert "not a public address" in str(log[0].error)
        assert receiver.got.empty()


def test_a_log_tells_neither_the_address_that_was_tried_nor_the_secret(cancelled, log_of, caplog):
    with Receiver() as receiver:
        pass
    job_id = cancelled(receiver.url)
    caplog.set_level("DEBUG", logger="app")
    log = log_of(job_id)
    assert {each.error for each in log} == {"no connection"}
    told = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert job_id in told
    assert SECRET not in told
    assert SECRET.removeprefix("whsec_") not in told
    assert "/hook" not in told


URLS = {
    "ftp://example.org/": "http:// or https://",
    "file:///etc/passwd": "http:// or https://",
    "http://": "names a host",
    "//example.org/": "http:// or https://",
    "http://example.org:99999/": "no URL",
    "http://example.org:0/": "names a host",
    "http://me:word@example.org/": "no user",
    "http://@example.org/": "no user",
    "http://example.org/#top": "no fragment",
    "http://exämple.org/": "ASCII",
    "http://example.org/a b": "blanks",
    "http://example.org/\nx": "ASCII",
    "http://example.org/" + "x" * 2000: "2000",
    "http://127.0.0.1/": "not a public address",
    "http://localhost:8000/": "not a public address",
    "http://10.1.2.3/": "not a public address",
    "http://192.168.0.1/": "not a public address",
    "http://100.64.0.1/": "not a public address",
    "http://169.254.169.254/latest/meta-data": "not a public address",
    "http://0.0.0.0/": "not a public address",
    "http://224.0.0.1/": "not a public address",
    "http://255.255.255.255/": "not a public address",
    "http://[::1]/": "not a public address",
    "http://[::]/": "not a public address",
    "http://[fe80::1]/": "not a public address",
    "http://[fd00:ec2::254]/": "not a public address",
    "http://[fec0::1]/": "not a public address",
    "http://[ff02::1]/": "not a public address",
    "http://[::ffff:10.0.0.1]/": "not a public address",
    "http://[::10.0.0.1]/": "not a public address",
    "http://[64:ff9b::10.0.0.1]/": "not a public address",
    "http://[2002:a00:1::1]/": "not a public address",
    "http://[2001:0:a00:1::1]/": "not a public address",
}


@pytest.mark.parametrize("url", URLS, ids=lambda url: url[:40].encode("unicode_escape").decode())
def test_a_url_that_leads_inside_or_is_none_is_refused(url):
    assert URLS[url] in str(Targets().refusal(url))


@pytest.mark.parametrize("host", ["0177.0.0.1", "2130706433", "0x7f.1", "127.1", "localhost", "localhost."])
def test_other_spellings_of_this_machine_are_refused_when_they_are_looked_up(host):
    with pytest.raises((TargetForbidden, OSError)):
        asyncio.run(Targets().addresses(host, 80))


@pytest.mark.parametrize("url", ["https://example.org/hook?a=b", "http://8.8.8.8:8080/", "https://[2606:4700::1]/x"])
def test_public_addresses_and_names_are_allowed(url):
    assert Targets().refusal(url) is None


def test_an_operator_can_allow_names_and_networks():
    targets = Targets.of("Hooks.Internal, 10.1.0.0/16,fd00::/8, localhost", loopback=False)
    allowed = ["http://hooks.internal/", "http://10.1.2.3/", "http://[fd00::1]/", "http://localhost/"]
    assert [targets.refusal(url) for url in allowed] == [None] * 4
    assert asyncio.run(targets.addresses("localhost", 80))
    assert targets.refusal("http://10.2.0.1/") is not None
    for wrong in ("10.0.0.1/8", "http://x", "a b"):
        with pytest.raises(ValueError, match="RESNETD_WEBHOOK_HOSTS"):
            Targets.of(wrong, loopback=False)


def test_a_server_for_this_machine_alone_may_call_this_machine_and_no_other():
    assert Targets.of("", loopback=True).refusal("http://localhost:9000/") is None
    assert Targets.of("", loopback=True).refusal("http://[::1]:9000/") is None
    assert Targets.of("", loopback=True).refusal("http://192.168.1.1/") is not None
