"""One training on several devices, as seen by one of them: what it must agree on, and what is summed over all.

Each rank computes a part of every batch: its gradient is averaged by DistributedDataParallel, and the normalisation's
statistics are those of the whole batch, so that the loss is that of one device up to the order of summation. What
depends on time, files or signals is rank 0's to say.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import orjson
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from store.control_group import usable_cores
from worker.job_process import JobRefused, hush
from worker.trainer.distributed_norm import globally_normalised
from worker.trainer.pixels import Rows
from worker.trainer.ranks import RENDEZVOUS

_PATIENCE = timedelta(minutes=30)  # for a rank that validates, or waits for a slow disk
_MESSAGE_BYTES = 256  # of an agreement in one piece: almost all are `false`

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among `size`; alone by default, and then all of this costs nothing."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one speaks, writes and decides."""
        return self.rank == 0

    def agreed(self, value: T) -> T:
        """Rank 0's value (JSON), on all ranks; they all must ask."""
        if self.size == 1:
            return value
        content = orjson.dumps(value) if self.leads else b""
        head = np.zeros(_MESSAGE_BYTES, np.uint8)
        head[:4] = np.frombuffer(len(content).to_bytes(4, "big"), np.uint8)
        head[4 : 4 + len(content)] = np.frombuffer(content[: _MESSAGE_BYTES - 4], np.uint8)
        message = _from_rank_0(torch.from_numpy(head))
        length = int.from_bytes(message[:4], "big")
        if length > _MESSAGE_BYTES - 4:
            whole = np.frombuffer(content, np.uint8) if self.leads else np.zeros(length, np.uint8)
            message = message[:4] + _from_rank_0(torch.from_numpy(whole.copy()))
        agreed: T = orjson.loads(message[4 : 4 + length])
        return agreed

    def add(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def refuse_unlike(self, step: int) -> None:
        """Raise RuntimeError where the ranks are not at one step. Nobody returns before all have asked."""
        if int(self.add(torch.tensor(step))) != step * self.size:
            raise RuntimeError(f"the ranks do not go on from the same step; rank {self.rank}: {step}")

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 first, then the others: it may fetch what they find."""
        if not self.leads:
            self.agreed(None)
        yield
        if self.leads:
            self.agreed(None)

    def spread(self, network: nn.Module) -> nn.Module:
        """The network with statistics over all ranks; parameters and names are the same."""
        return network if self.size == 1 else globally_normalised(network)

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """What is called in place of `network`, so that `backward` averages the gradients of all ranks."""
        if self.size == 1:
            return network
        return DistributedDataParallel(
            network, device_ids=[device] if device.type == "cuda" else None, forward_sync_buffers=False
        )


def _from_rank_0(content: Tensor) -> bytes:
    dist.broadcast(content, 0)
    return content.numpy().tobytes()


@contextmanager
def joined(*, devices: int, device: str) -> Iterator[tuple[World, str]]:
    """This process's place among the recipe's `devices`, and the device that it computes on. Raises JobRefused."""
    if devices == 1:
        yield World(), device
        return
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if not world.leads:
        hush()
    own = _own_device(device, devices, int(os.environ["LOCAL_RANK"]))
    if world.size != devices:
        raise JobRefused(
            "wrong_devices",
            f"the recipe asks for {devices} devices, {world.size} processes were started",
            f"Start {devices}: --nproc-per-node {devices}.",
        )
    rendezvous, store = os.environ.get(RENDEZVOUS), None
    if rendezvous:  # by its path: in a URL, # and ? would cut it
        store = dist.FileStore(rendezvous, world.size)  # type: ignore[attr-defined]  # torch does not declare it
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own.startswith("cuda") else "gloo",
        store=store,
        rank=world.rank,
        world_size=world.size,
        timeout=_PATIENCE,
    )
    try:
        yield world, own
    finally:
        dist.destroy_process_group()


def too_few_devices(name: str, devices: int) -> tuple[str, str, str] | None:
    """Why a worker of device `name` refuses a recipe of so many: code, message and hint; None where it does not."""
    if devices == 1:  # whether that one is there is another question
        return None
    own = _device_of(name, 0)
    have = max(2, usable_cores()) if own == "cpu" else torch.cuda.device_count() if own == "cuda:0" else 1
    if devices <= have:
        return None
    message = f"the recipe asks for {devices} devices, this worker has {have} ({name})"
    return "too_few_devices", message, f"Set devices to {have} or less." if have > 1 else "Set devices to 1."


def _own_device(name: str, devices: int, place: int) -> str:
    refusal = too_few_devices(name, devices)
    if refusal is not None:
        raise JobRefused(*refusal)
    own = _device_of(name, place)
    if own.startswith("cuda"):
        torch.cuda.set_device(own)
    return own


def _device_of(name: str, place: int) -> str:
    """The device of one rank; `name` of another GPU than the first means that one alone."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{place}" if name in ("cuda", "cuda:0") else name


def shares(batch: int, *, parts: int, world: World, mixed: bool) -> list[Rows]:
    """Which places of each batch this rank computes, part by part: int64 (B,) each, one run of the part.

    Where images are `mixed` with the one before them, that one (around the part's end) comes first, on top.
    """
    chosen = []
    for part in np.array_split(np.arange(batch), parts):
        places = np.array_split(np.arange(len(part)), world.size)[world.rank]
        if mixed and world.size > 1:
            places = np.concatenate([places[:1] - 1, places])
        chosen.append(part[places])
    return chosen
