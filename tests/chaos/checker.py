"""The invariants of `docs/reliability.md`, checked from outside: it knows nothing of how the system keeps them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import chain
from history import Line
from world import World

TERMINAL = {"succeeded", "failed", "cancelled"}
RUNS = {"running"}  # a new claim begins
#: States in which something must happen soon; queued and paused may last as long as they like.
BUSY = {"running", "cancelling", "pausing"}


@dataclass(frozen=True)
class Violation:
    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


@dataclass(frozen=True)
class Limits:
    #: A running job says something, or is taken back, within this.
    stuck_ms: float = 90_000
    #: A queue that has work moves within this.
    idle_ms: float = 90_000
    #: From the answer to a cancellation to the end.
    cancel_ms: float = 60_000
    #: A process that lost its job may go on this long unheard: its supervisor is stopped or cut off.
    stray_ms: float = 500


def check(world: World, limits: Limits | None = None) -> list[Violation]:
    limits = limits or Limits()
    return [violation for each in INVARIANTS for violation in each(world, limits)]


def accepted_jobs_end(world: World, _: Limits) -> Iterator[Violation]:
    """I1: whatever was acknowledged is known, and has ended."""
    for job in sorted(world.accepted() - world.deleted()):
        if job not in world.jobs:
            yield Violation("I1", f"{job} was acknowledged and is unknown")
    for job, record in world.jobs.items():
        if record["state"] not in TERMINAL:
            yield Violation("I1", f"{job} has not ended: it is {record['state']}")


def claims_fence(world: World, _: Limits) -> Iterator[Violation]:
    """I2: claims increase by one, and what a job's process said is told under the claim that said it, once."""
    for job, events in world.events.items():
        claim = 0
        held = False
        said: Counter[tuple[object, ...]] = Counter()
        for event in events:
            if event["type"] in RUNS and not _resumed_in_place(event):
                if event["data"]["claim"] != claim + 1:
                    yield Violation("I2", f"{job}: claim {event['data']['claim']} comes after {claim}")
                claim, held = event["data"]["claim"], True
            elif event["type"] in {"queued", "paused"} | TERMINAL:
                held = False
            elif "claim" in event["data"]:
                data = event["data"]
                if data["claim"] != claim or not held:
                    yield Violation("I2", f"{job}: {event['type']} of claim {data['claim']} under claim {claim}")
                said[event["type"], data["claim"], data["step"]] += 1
        for what, times in said.items():
            if times > 1:
                yield Violation("I2", f"{job}: {what} was told {times} times")


def _resumed_in_place(event: Line) -> bool:
    """A resume while the process was being stopped: running again under the claim that it has."""
    return "claim" not in event["data"]


def results_are_published_once(world: World, _: Limits) -> Iterator[Violation]:
    """I2: a job that succeeded made exactly one version, and any other made none."""
    made = Counter(job for _, _, job in world.versions)
    for job, record in world.jobs.items():
        wanted = 1 if record["state"] == "succeeded" and record["spec"].get("register_as") else 0
        if made[job] != wanted:
            yield Violation("I2", f"{job} is {record['state']} and made {made[job]} versions")


def nothing_follows_the_end(world: World, _: Limits) -> Iterator[Violation]:
    """I3: the terminal event is the last, and it is what the record says."""
    for job, events in world.events.items():
        ends = [index for index, event in enumerate(events) if event["type"] in TERMINAL]
        state = world.jobs[job]["state"]
        if len(ends) > 1 or (ends and ends[0] != len(events) - 1):
            yield Violation("I3", f"{job}: something follows the end: {[event['type'] for event in events[ends[0] :]]}")
        if state in TERMINAL and (not ends or events[ends[0]]["type"] != state):
            yield Violation("I3", f"{job} is {state}, its history ends with {events[-1]['type'] if events else None}")


def streams_have_no_gap(world: World, _: Limits) -> Iterator[Violation]:
    """I4: what a client saw is the history, each event once; and the history is what Redis holds."""
    for job, events in world.events.items():
        ids = [event["id"] for event in events]
        if sorted(ids, key=_order) != ids or len(set(ids)) != len(ids):
            yield Violation("I4", f"{job}: the history is not in order")
        stream = world.streams.get(job) or []
        if stream and ids[-len(stream) :] != stream:
            yield Violation("I4", f"{job}: HTTP tells {len(ids)} events, the stream holds {len(stream)} others")
    for line in world.history:
        if line["op"] != "watch" or "ids" not in line or line["job"] in world.deleted():
            continue
        ids = [event["id"] for event in world.events.get(line["job"], [])]
        seen = line["ids"]
        whole = line["type"] == "ok"
        if seen != (ids if whole else ids[: len(seen)]):
            lacking, double = len(set(ids) - set(seen)), len(seen) - len(set(seen))
            yield Violation("I4", f"{line['client']} on {line['job']}: {lacking} events missed, {double} doubled")


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)


def cancellations_are_true(world: World, limits: Limits) -> Iterator[Violation]:
    """I5: an accepted cancellation ends the job in time, in one truthful outcome, and nothing runs on."""
    for line in world.history:
        if line["op"] != "cancel" or line["type"] not in {"ok", "fail"}:
            continue
        events = world.events.get(line["job"], [])
        end = next((event for event in events if event["type"] in TERMINAL), None)
        if end is None:
            continue  # deleted since, or I1 says it
        if line["type"] == "fail":
            if line.get("state") in TERMINAL and line["state"] != end["type"]:
                yield Violation("I5", f"{line['job']}: refused because it was {line['state']}, and it {end['type']}")
            continue
        if end["type"] != "cancelled":
            yield Violation("I5", f"{line['job']}: a cancellation was accepted and the job {end['type']}")
        if milliseconds(end) - line["t"] > limits.cancel_ms:
            yield Violation("I5", f"{line['job']}: cancelled {milliseconds(end) - line['t']:.0f} ms after the answer")
    for job, moment in _ended(world).items():
        late = [line for line in world.ran if line["job"] == job and "step" in line and line["t"] > moment]
        if late and late[-1]["t"] - moment > limits.stray_ms:
            yield Violation("I5", f"{job} ran {late[-1]['t'] - moment:.0f} ms after its end")


def _ended(world: World) -> dict[str, float]:
    """When jobs ended that had run."""
    last: dict[str, float] = {}
    for line in world.ran:
        last[line["job"]] = max(line["t"], last.get(line["job"], 0.0))
    found = {}
    for job, events in world.events.items():
        if events and events[-1]["type"] in TERMINAL and last.get(job, 0.0) > milliseconds(events[-1]):
            found[job] = milliseconds(events[-1])
    return found


def resumed_runs_equal_straight_ones(world: World, _: Limits) -> Iterator[Violation]:
    """I6: every step that ran, and every result, is the one of a run that nothing interrupted."""
    seeds = {job: record["spec"]["overrides"]["seed"] for job, record in world.jobs.items() if _is_toy(record)}
    furthest: dict[str, int] = {}
    for line in world.ran:
        furthest[line["job"]] = max(_step(line), furthest.get(line["job"], 0))
    for line in world.ran:
        seed = seeds.get(line["job"])
        step = _step(line)
        if seed is not None and chain.straight(seed, furthest[line["job"]])[step] != line["sha"]:
            yield Violation("I6", f"{line['job']}: step {step} of claim {line['claim']} differs from a straight run")
    for job, record in world.jobs.items():
        if job not in seeds or record["state"] != "succeeded":
            continue
        told = record["result"]["metrics"]
        overrides = record["spec"]["overrides"]
        steps = overrides["epochs"] * overrides["batch_size"]
        changed = any(event["type"] in {"finish_requested", "settings_changed"} for event in world.events[job])
        if told["step"] != steps and not changed:
            yield Violation("I6", f"{job} ended at step {told['step']} of {steps}")
        if chain.straight(seeds[job], told["step"])[told["step"]] != told["sha"]:
            yield Violation("I6", f"{job}: its result differs from a straight run's")


def _step(line: Line) -> int:
    """The step that ran, or after which a claim went on."""
    return int(line["step"] if "step" in line else line["resumed"])


def _is_toy(record: Line) -> bool:
    return record["kind"] == "train" and "seed" in record["spec"].get("overrides", {})


def one_job_a_key(world: World, _: Limits) -> Iterator[Violation]:
    """I7: one idempotency key, one job; and a job that nobody asked for does not exist."""
    jobs: dict[str, set[str]] = {}
    for line in world.history:
        if (line["op"], line["type"]) == ("submit", "ok"):
            jobs.setdefault(line["key"], set()).add(line["job"])
    for key, found in jobs.items():
        if len(found) > 1:
            yield Violation("I7", f"key {key} made {len(found)} jobs")
    unknown = {line["key"] for line in world.history if (line["op"], line["type"]) == ("submit", "info")} - set(jobs)
    told = {job for found in jobs.values() for job in found}
    untold = [job for job, record in world.jobs.items() if job not in told and not record.get("retry_of")]
    if len(untold) > len(unknown):
        yield Violation("I7", f"{len(untold)} jobs exist that nobody was told of, {len(unknown)} answers are unknown")
    again = Counter(record["retry_of"] for record in world.jobs.values() if record.get("retry_of"))
    for job, times in again.items():
        if times > 1:
            yield Violation("I7", f"{job} was tried again as {times} jobs")


def nothing_is_left(world: World, _: Limits) -> Iterator[Violation]:
    """I8: no process, temporary file, lock or key without an owner."""
    for what in world.leftovers:
        yield Violation("I8", what)


def nothing_is_stuck(world: World, limits: Limits) -> Iterator[Violation]:
    """I1: a job under way is heard of, and a queue with work moves."""
    queued: list[tuple[float, int]] = []
    for job, events in world.events.items():
        for event, following in pairwise(events):
            pause = milliseconds(following) - milliseconds(event)
            if event["type"] == "queued":
                queued += [(milliseconds(event), 1), (milliseconds(following), -1)]
            elif pause > limits.stuck_ms and event["type"] != "paused":
                yield Violation("I1", f"{job}: {pause / 1000:.0f} s between {event['type']} and {following['type']}")
    moments = sorted(milliseconds(event) for events in world.events.values() for event in events)
    for begin, end in pairwise(moments):
        if end - begin > limits.idle_ms and sum(change for moment, change in queued if moment <= begin) > 0:
            yield Violation("I1", f"the queue stood still for {(end - begin) / 1000:.0f} s")


def milliseconds(event: Line) -> float:
    return float(event["id"].partition("-")[0])


INVARIANTS: tuple[Callable[[World, Limits], Iterator[Violation]], ...] = (
    accepted_jobs_end,
    claims_fence,
    results_are_published_once,
    nothing_follows_the_end,
    streams_have_no_gap,
    cancellations_are_true,
    resumed_runs_equal_straight_ones,
    one_job_a_key,
    nothing_is_left,
    nothing_is_stuck,
)
