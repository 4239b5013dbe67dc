"""The checker finds what is wrong: each doctored history breaks one invariant, and the true one breaks none."""

import copy

import chain
import pytest
from checker import Limits, check
from world import World

T0 = 1_795_000_000_000


def event(after_ms, kind, n=0, **data):
    return {"id": f"{T0 + after_ms}-{n}", "type": kind, "data": data}


def true_world():
    """Two jobs: one crashes, resumes and succeeds; one is cancelled while it runs."""
    states = chain.straight(7, 4)

    def epoch(after_ms, claim, step):
        return event(after_ms, "epoch", claim=claim, step=step, sha=states[step])

    def ran(after_ms, job, claim, step):
        return {"t": T0 + after_ms, "job": job, "claim": claim, "step": step, "sha": states[step]}

    spec = {"register_as": "m", "overrides": {"seed": 7, "epochs": 2, "batch_size": 2}}
    events = [
        event(0, "queued", reason="submitted"),
        event(10, "running", claim=1),
        epoch(20, 1, 2),
        event(30, "queued", reason="crashed"),
        event(40, "running", claim=2),
        epoch(50, 2, 2),
        epoch(60, 2, 4),
        event(70, "succeeded"),
    ]
    cancelled = [event(5, "queued"), event(15, "running", claim=1), event(25, "cancelling"), event(35, "cancelled")]
    return World(
        history=[
            {"t": T0, "type": "invoke", "op": "submit", "client": "c", "key": "k1"},
            {"t": T0 + 1, "type": "ok", "op": "submit", "client": "c", "key": "k1", "job": "a"},
            {"t": T0 + 5, "type": "ok", "op": "submit", "client": "c", "key": "k2", "job": "b"},
            {"t": T0 + 26, "type": "ok", "op": "cancel", "client": "c", "job": "b"},
            {"t": T0 + 80, "type": "ok", "op": "watch", "client": "w", "job": "a", "ids": [e["id"] for e in events]},
        ],
        ran=[ran(18, "a", 1, 1), ran(19, "a", 1, 2), ran(55, "a", 2, 3), ran(58, "a", 2, 4), ran(20, "b", 1, 1)],
        jobs={
            "a": {
                "id": "a",
                "kind": "train",
                "state": "succeeded",
                "spec": spec,
                "result": {"metrics": {"step": 4, "sha": states[4]}},
            },
            "b": {"id": "b", "kind": "train", "state": "cancelled", "spec": spec, "result": None},
        },
        events={"a": events, "b": cancelled},
        streams={"a": [e["id"] for e in events], "b": [e["id"] for e in cancelled]},
        versions=[("m", 1, "a")],
    )


def test_nothing_is_found_in_a_true_history():
    assert check(true_world()) == []


def lose_a_job(world):
    del world.jobs["a"], world.events["a"], world.streams["a"]
    world.versions.clear()


def leave_a_job_running(world):
    world.jobs["b"]["state"] = "running"
    del world.events["b"][2:]
    world.streams["b"] = [each["id"] for each in world.events["b"]]
    world.history = [line for line in world.history if line["op"] != "cancel"]


def let_a_job_be_silent_for_minutes(world):
    world.events["b"][-1]["id"] = f"{T0 + 200_000}-0"
    world.streams["b"][-1] = world.events["b"][-1]["id"]
    world.history = [line for line in world.history if line["op"] != "cancel"]


def let_the_queue_stand_still(world):
    for each in world.events["a"][1:]:
        each["id"] = f"{int(each['id'].split('-')[0]) + 200_000}-0"
    world.streams["a"] = [each["id"] for each in world.events["a"]]
    world.history.pop()


def repeat_a_claim(world):
    world.events["a"][4]["data"]["claim"] = 1


def accept_a_stale_writer(world):
    world.events["a"][5]["data"]["claim"] = 1


def accept_a_writer_without_a_claim(world):
    world.events["a"][2], world.events["a"][3] = (
        world.events["a"][3] | {"id": world.events["a"][2]["id"]},
        world.events["a"][2] | {"id": world.events["a"][3]["id"]},
    )


def tell_an_epoch_twice(world):
    world.events["a"][5]["data"] = dict(world.events["a"][6]["data"])


def publish_twice(world):
    world.versions.append(("m", 2, "a"))


def publish_what_was_cancelled(world):
    world.versions.append(("m", 2, "b"))


def write_after_the_end(world):
    world.events["b"].append(event(45, "log"))
    world.streams["b"].append(f"{T0 + 45}-0")


def end_twice(world):
    world.events["b"].append(event(45, "failed"))
    world.streams["b"].append(f"{T0 + 45}-0")


def contradict_the_record(world):
    world.jobs["b"]["state"] = "failed"


def miss_an_event(world):
    del world.history[-1]["ids"][3]


def see_an_event_twice(world):
    world.history[-1]["ids"].insert(3, world.history[-1]["ids"][3])


def see_events_in_the_wrong_order(world):
    ids = world.history[-1]["ids"]
    ids[3], ids[4] = ids[4], ids[3]


def tell_less_than_the_stream_holds(world):
    world.streams["a"].insert(3, f"{T0 + 25}-0")


def accept_a_cancellation_and_succeed(world):
    world.history.append({"t": T0 + 60, "type": "ok", "op": "cancel", "client": "c", "job": "a"})


def refuse_a_cancellation_for_another_end(world):
    world.history.append({"t": T0 + 90, "type": "fail", "op": "cancel", "client": "c", "job": "a", "state": "failed"})


def cancel_too_late(world):
    world.history[3]["t"] -= 100_000


def run_on_after_the_cancellation(world):
    world.ran.append({"t": T0 + 35 + 3000, "job": "b", "claim": 1, "step": 2, "sha": chain.straight(7, 2)[2]})


def compute_something_else_after_a_resume(world):
    world.ran[2]["sha"] = "0" * 64


def tell_a_result_that_is_not_that_of_a_straight_run(world):
    world.jobs["a"]["result"]["metrics"]["sha"] = "0" * 64


def end_before_the_last_step(world):
    world.jobs["a"]["result"]["metrics"] = {"step": 3, "sha": chain.straight(7, 3)[3]}


def make_two_jobs_of_one_key(world):
    world.history[2]["key"] = "k1"


def make_a_job_that_nobody_asked_for(world):
    del world.history[2]


def leave_a_process(world):
    world.leftovers.append("process 17: toy_trainer")


DOCTORS = {
    "I1": (lose_a_job, leave_a_job_running, let_a_job_be_silent_for_minutes, let_the_queue_stand_still),
    "I2": (
        repeat_a_claim,
        accept_a_stale_writer,
        accept_a_writer_without_a_claim,
        tell_an_epoch_twice,
        publish_twice,
        publish_what_was_cancelled,
    ),
    "I3": (write_after_the_end, end_twice, contradict_the_record),
    "I4": (miss_an_event, see_an_event_twice, see_events_in_the_wrong_order, tell_less_than_the_stream_holds),
    "I5": (
        accept_a_cancellation_and_succeed,
        refuse_a_cancellation_for_another_end,
        cancel_too_late,
        run_on_after_the_cancellation,
    ),
    "I6": (
        compute_something_else_after_a_resume,
        tell_a_result_that_is_not_that_of_a_straight_run,
        end_before_the_last_step,
    ),
    "I7": (make_two_jobs_of_one_key, make_a_job_that_nobody_asked_for),
    "I8": (leave_a_process,),
}


@pytest.mark.parametrize(
    ("invariant", "doctor"),
    [(invariant, doctor) for invariant, doctors in DOCTORS.items() for doctor in doctors],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_doctored_history_breaks_its_invariant(invariant, doctor):
    world = copy.deepcopy(true_world())
    doctor(world)
    assert invariant in {violation.invariant for violation in check(world, Limits())}
