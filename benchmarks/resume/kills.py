"""Claims killed at every step and phase of a save, and at random moments of saves."""

import random
import shutil
import signal
from collections import Counter
from typing import Any

from benchmarks.resume.run import Run, names
from models import checkpoint, checkpoint_files
from store.layout import Layout
from worker.job_process import DONE

#: Where a claim is killed, and at which passing: the second where the first would leave nothing new behind.
PHASES = {
    "training.stepped": 2,
    "checkpoint.tmp_written": 2,
    "checkpoint.durable": 2,
    "checkpoint.renamed": 1,
    "checkpoint.pruned": 1,
    "checkpoint.said": 1,
}


def matrix(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A run for each phase and number of workers, killed there at every step."""
    kills: Counter[str] = Counter()
    different, unexpected = [], []
    for workers in (0, 2):
        for phase, again in PHASES.items():
            job = Run(layout, f"{phase}-{workers}", workers=workers, **overrides)
            passing = 1
            while True:
                ended = job.claim(f"{phase}:{passing}:kill")
                passing = again
                if ended.code != -signal.SIGKILL:
                    break
                kills[f"{phase}, {workers} workers"] += 1
            if ended.code != DONE:
                unexpected.append(f"{phase}, {workers} workers: exit status {ended.code}")
            elif job.outcome(ended) != undisturbed:
                different.append(f"{phase}, {workers} workers")
            shutil.rmtree(job.folder)
    return {"kills": kills.total(), "by_phase": dict(kills), "different": different, "unexpected": unexpected}


def kills_in_saves(
    layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any], *, kills: int
) -> dict[str, Any]:
    """Kills at any moment of a save, of runs that save after every step; a new run begins where one came to its end."""
    chance = random.Random(0)
    done, halves, runs, unloadable, lost, different = 0, 0, 0, 0, 0, 0
    while done < kills:
        job, told = Run(layout, f"saves-{runs}", workers=2, **overrides), 0
        runs += 1
        while True:
            moment = (chance.randint(1, 3), chance.uniform(0, 0.02)) if done < kills else None
            ended = job.claim(kill_in_save=moment)
            if ended.code != -signal.SIGKILL:
                break
            done += 1
            halves += any(name.startswith(".step-") for name in names(job.folder / f"claim-{job.claims}"))
            told = max([told, *ended.steps])
            places = checkpoint_files.found(job.folder)
            for _, _, place in places:
                try:
                    checkpoint.load(place)
                except checkpoint_files.CheckpointDamagedError:
                    unloadable += 1
            if told and (not places or checkpoint.load(places[0][2]).step < told):
                lost += 1
        if ended.code != DONE or job.outcome(ended) != undisturbed:
            different += 1
        shutil.rmtree(job.folder)
    return {
        "kills": done,
        "left_half_written": halves,
        "runs": runs,
        "unloadable": unloadable,
        "behind_what_was_told": lost,
        "different": different,
    }
