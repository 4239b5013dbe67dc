"""Everything that a checker needs, gathered at the end of a scenario: what clients saw, what ran, what is told now."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, cast

from clients import Client
from history import History, Line, read
from redis import Redis
from stack import Stack, processes

from models.manifest import Manifest
from store.layout import Layout
from worker.lane import last_taken

#: What may be left in Redis: everything else is a leak.
PERMANENT = ("rn:jobs", "rn:last_created", "rn:ended", "rn:state:", "rn:job:")


@dataclass
class World:
    history: list[Line] = field(default_factory=list)
    ran: list[Line] = field(default_factory=list)
    calls: list[Line] = field(default_factory=list)
    #: Every job as HTTP tells it, its events as HTTP tells them, the ids of its stream in Redis.
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    streams: dict[str, list[str]] = field(default_factory=dict)
    #: (name, version, job that made it)
    versions: list[tuple[str, int, str]] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def accepted(self) -> set[str]:
        return {line["job"] for line in self.history if (line["op"], line["type"]) == ("submit", "ok")}

    def deleted(self) -> set[str]:
        """Jobs that somebody asked to delete, whether or not it was heard."""
        return {line["job"] for line in self.history if line["op"] == "delete"}


async def gather(stack: Stack, history: History) -> World:
    """Look at everything; the stack runs and nothing harms it any more."""
    world = World(history=read(history.path), ran=read(stack.ran), calls=read(stack.calls))
    async with Client(stack.url, history, "checker") as client:
        listed = await client.pages("/v1/jobs")
        world.jobs = {job["id"]: job for job in listed}
        # A job that was accepted and is not in the list is looked for by name: then it is lost, or the list is wrong.
        for job in world.accepted() - set(world.jobs):
            with contextlib.suppress(LookupError):
                world.jobs[job] = await client.get(job)
        for job in world.jobs:
            world.events[job] = await client.pages(f"/v1/jobs/{job}/events")
    for job in world.jobs:
        entries = cast("list[tuple[str, Any]]", stack.redis.xrange(f"rn:job:{job}:events"))
        world.streams[job] = [entry for entry, _ in entries]
    world.versions = versions(stack.layout)
    world.leftovers = await asyncio.to_thread(leftovers, stack)
    return world


def versions(layout: Layout) -> list[tuple[str, int, str]]:
    return [
        (folder.parent.name, int(folder.name), Manifest.read(folder).lineage.job)
        for folder in layout.models.glob("*/*")
        if folder.name.isdigit()
    ]


def leftovers(stack: Stack, *, seconds: float = 90.0) -> list[str]:
    """What a stack without work should not have; looked at until nothing is found or the time is over.

    A webhook's message that a killed process had taken, or that failed, is tried again after half a minute.
    """
    until = time.monotonic() + seconds
    while True:
        found = [*_processes(stack), *_files(stack.layout), *_locks(stack.layout), *_keys(stack.redis)]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.5)


def _processes(stack: Stack) -> list[str]:
    """Orphans: whoever is neither a part nor a part's pool process."""
    known = {pid for part in stack.parts if (pid := stack.pid(part.name)) is not None}
    for part in stack.parts:
        known |= set(stack.pool(part.name)) if part.name.startswith("worker") else set()
    return [f"process {pid}: {line}" for pid, line in processes(stack.layout.root) if pid not in known]


def _files(layout: Layout) -> list[str]:
    places = [*layout.jobs.rglob(".*"), *layout.models.rglob(".*.tmp"), *layout.uploads.iterdir()]
    return [f"file {place.relative_to(layout.root)}" for place in places if place.name != ".lock"]


def _locks(layout: Layout) -> list[str]:
    """Slots that somebody holds although nothing is to be done."""
    return [
        f"lock {place.name}"
        for place in layout.locks.glob("*.lock")
        if place.name != "up.lock" and last_taken(place) is None
    ]


def _keys(redis: "Redis") -> list[str]:
    """Leases, bells and keys that lead nowhere."""
    found = []
    jobs = {str(job) for job in redis.zrange("rn:jobs", 0, -1)}
    for key in map(str, redis.scan_iter("*", count=1000)):
        owner = key.removeprefix("rn:job:").removesuffix(":events")
        if key.startswith("rn:job:") and owner.split(":")[0] not in jobs:
            found.append(f"key {key}: of no job")
        if not key.startswith(PERMANENT) and redis.ttl(key) == -1:
            found.append(f"key {key}")
    return found
