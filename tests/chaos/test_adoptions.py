"""A model that was brought from elsewhere is there once, whatever dies on the way."""

import asyncio

import torch
from safetensors.torch import save
from scene import scene

from models.manifest import NetworkSpec
from models.networks.registry import build

#: The supervisor dies before the process has done anything, while it publishes, and before it can say so.
DEATHS = "submit.written:1:kill,supervisor.started:1:kill,catalog.renamed:1:kill,supervisor.published:1:kill"


def test_an_adopted_model_is_there_once_after_deaths_at_every_stage(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    torch.manual_seed(0)
    network = build(NetworkSpec(name="cifar/resnet8", num_classes=10, in_channels=3))
    file = save({f"module.{name}": tensor for name, tensor in network.state_dict().items()})

    async def play():
        environment = {"RESNETD_FAULT": DEATHS, "RESNETD_FAULT_ONCE": str(marks)}
        async with scene(tmp_path / "scene", environment=environment) as it:
            job = await it.client.bring(file, name="mine")
            await it.settle([job])
            world = await it.conclude()
            return world.jobs[job], it.report.violations, it.stack.layout.job(job) / "upload"

    record, violations, upload = asyncio.run(play())
    assert len(list(marks.iterdir())) == 4
    assert (record["kind"], record["state"], violations) == ("adopt", "succeeded", [])
    assert (record["result"]["model"], record["result"]["version"]) == ("mine", 1)
    assert not upload.exists()
