"""A result that is public belongs to a job that succeeded, however often its worker dies over it."""

import asyncio

from clients import training
from scene import scene

#: Each dies after the model version has its number, before the ledger knows of it.
DEATHS = "catalog.renamed:1:kill,supervisor.published:1:kill,supervisor.before_finish:1:kill"


def test_a_job_whose_model_is_public_succeeds_after_three_deaths_in_a_row(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()

    async def play():
        environment = {"RESNETD_FAULT": DEATHS, "RESNETD_FAULT_ONCE": str(marks)}
        async with scene(tmp_path / "scene", environment=environment) as it:
            job = await it.client.submit(training(seed=1, model="m", checkpoint_seconds=60.0))
            await it.settle([job])
            world = await it.conclude()
            return world.jobs[job]["state"], it.report.violations

    state, violations = asyncio.run(play())
    assert len(list(marks.iterdir())) == 3
    assert (state, violations) == ("succeeded", [])


def test_a_job_whose_model_is_public_cannot_be_cancelled_any_more(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()

    async def play():
        environment = {"RESNETD_FAULT": "catalog.renamed:1:kill", "RESNETD_FAULT_ONCE": str(marks)}
        async with scene(tmp_path / "scene", environment=environment) as it:
            job = await it.client.submit(training(seed=1, model="m"))
            record = await it.client.get(job)
            while record["crashes"] == 0:
                record = await it.client.get(job)
            answer = await it.client.verb(job, "cancel")
            await it.settle([job])
            world = await it.conclude()
            return answer, world.jobs[job]["state"], it.report.violations

    answer, state, violations = asyncio.run(play())
    assert (answer.status, answer.body.get("code")) == (409, "job_publishing")
    assert (state, violations) == ("succeeded", [])
