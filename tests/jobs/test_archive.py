"""A job's history: long ones move to disk as they grow, ended ones are kept there, and readers see one whole."""

import fcntl
import os
from io import BytesIO

import orjson
import pytest
from ledger_kit import claim, ended, submit

from jobs import event_file, keys
from jobs.answers import JobNotFound
from jobs.archive import archive, archived_events, archived_job, history, page, spill
from jobs.event_file import offset_above, order
from jobs.model import Kind, State, Webhook
from store.layout import Layout


def written(layout: Layout, job_id: str) -> list[str]:
    """The ids in the job's file."""
    lines = (layout.job(job_id) / "events.jsonl").read_bytes().splitlines()
    return [orjson.loads(line)["id"] for line in lines]


def streamed(ledger, job_id) -> list[str]:
    return [entry_id for entry_id, _ in ledger.redis.xrange(keys.events(job_id), "-", "+")]


def running_with_events(ledger, number):
    """A running job with so many events in all."""
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.emit(held, 1, [("progress", {"step": step}) for step in range(number - 2)])
    return job_id, held


def read_all(ledger, layout, job_id, limit):
    seen, after, more = [], "0-0", True
    while more:
        events, more = history(ledger, layout, job_id, after, limit)
        assert len(events) <= limit
        seen += [event.id for event in events]
        after = seen[-1]
    return seen


def test_spilling_brings_every_event_to_disk_and_leaves_the_newest_in_the_stream(ledger, layout):
    job_id, held = running_with_events(ledger, 30)
    ids = streamed(ledger, job_id)
    assert spill(ledger, layout, job_id, keep=10) == 20
    assert written(layout, job_id) == ids
    assert streamed(ledger, job_id) == ids[-10:]
    ledger.emit(held, 2, [("epoch", {})] * 5)
    newer = streamed(ledger, job_id)[-5:]
    assert spill(ledger, layout, job_id, keep=10) == 5
    assert written(layout, job_id) == ids + newer


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 100])
def test_history_is_whole_across_disk_and_stream_from_any_place(ledger, layout, limit):
    job_id, held = running_with_events(ledger, 30)
    spill(ledger, layout, job_id, keep=8)
    ledger.emit(held, 2, [("epoch", {})] * 3)
    every = [*written(layout, job_id), *streamed(ledger, job_id)[-3:]]
    assert read_all(ledger, layout, job_id, limit) == every
    for place, after in enumerate(every):
        events, more = history(ledger, layout, job_id, after, limit)
        assert [event.id for event in events] == every[place + 1 :][:limit]
        assert more == (len(every) - place - 1 > limit)


def test_events_that_come_between_writing_and_trimming_stay_in_the_stream(ledger, layout):
    job_id, _ = running_with_events(ledger, 30)
    ids = streamed(ledger, job_id)
    assert ledger.trim(job_id, stored=ids[14], keep=10) == 0  # 15 newer ones are nowhere else
    assert ledger.trim(job_id, stored=ids[19], keep=10) == 20
    assert streamed(ledger, job_id) == ids[20:]


def test_a_line_that_a_crash_left_unfinished_is_written_again_and_never_read(ledger, layout):
    job_id, _ = running_with_events(ledger, 12)
    spill(ledger, layout, job_id, keep=4)
    path = layout.job(job_id) / "events.jsonl"
    whole = path.read_bytes()
    for lost in (1, 20, len(whole.splitlines()[-1])):  # the last line loses its end, or all but its end
        path.write_bytes(whole[:-lost])
        before = written_whole(path)
        assert len(archived_events(layout, job_id, after="0-0", limit=99)[0]) == before
        assert len(read_all(ledger, layout, job_id, 5)) == 12
        spill(ledger, layout, job_id, keep=4)
        assert path.read_bytes() == whole


def written_whole(path) -> int:
    return path.read_bytes().count(b"\n")


def test_one_process_at_a_time_writes_a_jobs_history(ledger, layout):
    job_id, _ = running_with_events(ledger, 12)
    layout.job(job_id).mkdir(parents=True)
    fd = os.open(layout.job(job_id), os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert spill(ledger, layout, job_id, keep=4) == 0
    assert not (layout.job(job_id) / "events.jsonl").exists()
    os.close(fd)
    assert spill(ledger, layout, job_id, keep=4) == 8


def test_an_ended_job_is_read_the_same_from_redis_from_disk_and_when_redis_has_let_it_go(ledger, layout):
    job_id, held = running_with_events(ledger, 30)
    spill(ledger, layout, job_id, keep=8)
    ledger.succeed(held, {"model": "m"})
    archive(ledger, layout)
    job, every = ledger.get(job_id), written(layout, job_id)
    assert len(every) == 31
    assert read_all(ledger, layout, job_id, 7) == every
    assert ledger.sweep(older_than_ms=-1, limit=10) == 1
    assert read_all(ledger, layout, job_id, 7) == every
    assert archived_job(layout, job_id) == job


def test_the_record_on_disk_holds_no_secret(ledger, layout):
    webhook = Webhook(url="https://example.org", secret="whsec_c2VjcmV0")
    job_id = ledger.submit(Kind.TRAIN, {}, webhook=webhook).job_id
    ledger.cancel(job_id)
    archive(ledger, layout)
    assert "whsec" not in (layout.job(job_id) / "record.json").read_text()
    assert archived_job(layout, job_id).webhook.url == "https://example.org"


def test_what_a_killed_process_left_of_a_record_goes_when_another_one_writes_it(ledger, layout):
    job_id = ledger.submit(Kind.TRAIN, {}).job_id
    ledger.cancel(job_id)
    layout.job(job_id).mkdir(parents=True)
    (layout.job(job_id) / ".record.json.0123.tmp").write_text('{"id"')
    archive(ledger, layout)
    assert sorted(path.name for path in layout.job(job_id).iterdir()) == ["events.jsonl", "record.json"]


def test_a_retry_is_written_to_the_old_jobs_record_also_when_that_was_on_disk(ledger, layout):
    job_id = ended(ledger)
    again = ledger.retry(job_id).job_id
    archive(ledger, layout)
    assert archived_job(layout, job_id).retried_as == again
    assert archived_job(layout, job_id).state is State.CANCELLED
    assert ledger.unarchived() == []
    other = ended(ledger)
    ledger.retry(other)
    assert not ledger.archived(other, retried_as=None)  # what is on disk does not say so yet
    assert ledger.unarchived() == [other]


def test_a_job_deleted_meanwhile_is_not_written_again(ledger, layout):
    job_id = submit(ledger)
    ledger.redis.zadd(keys.UNARCHIVED, {job_id: 1, "job_deleted": 1})
    archive(ledger, layout)
    assert not layout.job("job_deleted").exists()
    assert ledger.unarchived() == []
    assert spill(ledger, layout, "job_deleted") == 0
    assert not layout.job("job_deleted").exists()


def test_a_job_whose_folder_cannot_be_written_keeps_no_other_from_the_disk(ledger, layout):
    stuck, other = submit(ledger), submit(ledger)
    layout.jobs.mkdir(exist_ok=True)
    layout.job(stuck).write_text("a file where the folder should be")
    for job_id in (stuck, other):
        ledger.cancel(job_id)
    archive(ledger, layout)
    assert ledger.unarchived() == [stuck]
    assert archived_job(layout, other).id == other


def test_a_history_that_was_damaged_on_disk_is_mended_from_the_stream_and_keeps_no_other_from_the_disk(ledger, layout):
    damaged, other = submit(ledger), submit(ledger)
    layout.job(damaged).mkdir(parents=True)
    (layout.job(damaged) / "events.jsonl").write_bytes(b"\x00\x00\n{torn\n")
    for job_id in (damaged, other):
        ledger.cancel(job_id)
    archive(ledger, layout)
    assert ledger.unarchived() == []
    for job_id in (damaged, other):
        assert [event.type for event in archived_events(layout, job_id, after="0-0", limit=9)[0]] == [
            "queued",
            "cancelled",
        ]


def test_a_record_that_nobody_can_read_keeps_no_other_job_from_the_disk(ledger, layout):
    unreadable, other = submit(ledger), submit(ledger)
    for job_id in (unreadable, other):
        ledger.cancel(job_id)
    ledger.redis.hset(keys.job(unreadable), "spec", "no JSON")
    archive(ledger, layout)
    assert ledger.unarchived() == [unreadable]


def test_only_what_can_be_an_id_becomes_a_path(layout):
    for wrong in ("../keys", "", "a/b", "x" * 81):
        with pytest.raises(JobNotFound):
            archived_job(layout, wrong)
        with pytest.raises(JobNotFound):
            archived_events(layout, wrong, after="0-0", limit=1)


def test_an_unknown_jobs_history_is_said_to_be_unknown(ledger, layout):
    with pytest.raises(JobNotFound):
        history(ledger, layout, "job_none", "0-0", 10)


class Counting(BytesIO):
    """A file that counts the lines read from it."""

    lines = 0

    def readline(self, size=-1):
        self.lines += 1
        return super().readline(size)


@pytest.mark.parametrize("number", [0, 1, 2, 50])
def test_the_place_behind_an_id_is_found_in_files_of_any_length(number):
    ids = [f"{1000 + n // 3}-{n % 3}" for n in range(number)]
    lines = [orjson.dumps({"id": each, "pad": "x" * (n * 37 % 200)}) + b"\n" for n, each in enumerate(ids)]
    file = BytesIO(b"".join(lines))
    for after in ["0-0", *ids, "1000-7", "99999-0"]:
        below = sum(order(each) <= order(after) for each in ids)
        assert offset_above(file, after) == sum(map(len, lines[:below]))


def test_a_long_history_is_not_read_from_its_start():
    file = Counting(b"".join(b'{"id":"%d-0"}\n' % n for n in range(100_000)))
    file.seek(offset_above(file, "99990-0"))
    assert file.readline() == b'{"id":"99991-0"}\n'
    assert file.lines < 60


def test_appending_reads_nothing_but_the_last_line(tmp_path):
    """A line longer than a block of the file counts as one."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"id":"1-0"}\n{"id":"2-0","data":"' + b"x" * 300_000 + b'"}\n')
    asked = []

    def nothing_newer(after):
        asked.append(after)
        return [], False

    assert event_file.append(path, nothing_newer) == "2-0"
    assert asked == ["2-0"]


def test_ended_jobs_are_listed_from_disk_the_newest_first_and_without_those_that_cannot_be_read(ledger, layout):
    ids = [submit(ledger) for _ in range(5)]
    for _ in ids:
        ledger.succeed(claim(ledger), {})
    running = submit(ledger)
    archive(ledger, layout)
    (layout.job(ids[1]) / "record.json").write_bytes(b"{")
    (layout.job(ids[2]) / "record.json").write_bytes(b'{"created_at": "2026-01-31T12:00:00Z"}')
    (layout.jobs / "a-file").touch()
    layout.job(running).mkdir(exist_ok=True)

    def pages(limit: int = 1, seconds: float = 60.0, only=lambda _: True) -> list[list[str]]:
        told, after = [], None
        while True:
            found, after = page(layout, limit=limit, after=after, only=only, seconds=seconds)
            told.append([job.id for job in found])
            if after is None:
                return told

    assert pages(limit=9) == [[ids[4], ids[3], ids[0]]]
    assert pages() == [[ids[4]], [ids[3]], [ids[0]]]
    assert pages(limit=2, only=lambda job: job.id != ids[3]) == [[ids[4], ids[0]]]
    assert pages(limit=2, seconds=0.0, only=lambda job: job.id == ids[0]) == [[], [], [ids[0]], []]
    assert page(layout, limit=1, after=None, only=lambda _: True, seconds=60.0)[0] == [archived_job(layout, ids[4])]
    with pytest.raises(JobNotFound):
        page(layout, limit=1, after="nobody", only=lambda _: True, seconds=60.0)
