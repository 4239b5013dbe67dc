"""`python -m worker.trainer RUN_DIR [--claim N] [--data DIR] [--device auto]`: train, knowing neither Celery nor Redis.

On several CPU cores glibc's malloc gives pages back too eagerly for tensors of one size over and over: the variables of
`KEEP_PAGES` keep them, and must be there when the process starts, so by hand it starts itself once more with them.
"""

import os
import sys

from store.process import attach_to_parent
from worker.job_arguments import read_arguments
from worker.job_environment import KEEP_PAGES
from worker.job_process import Stop, run
from worker.trainer.ranks import is_rank, run_ranks
from worker.trainer.spec import read_spec


def main(stop: Stop) -> int | None:
    arguments = read_arguments("worker.trainer", "Run one train job.")
    _, recipe = read_spec(arguments.run_dir)
    if recipe.devices > 1 and not is_rank():
        return run_ranks(arguments, count=recipe.devices)
    from worker.trainer.train import train  # noqa: PLC0415 - torch takes seconds; SIGTERM is heard from the start

    train(arguments, stop)
    return None


if __name__ == "__main__":
    if not set(KEEP_PAGES) <= os.environ.keys():
        attach_to_parent()  # exec keeps the death signal and the pid
        os.execve(sys.executable, sys.orig_argv, {**KEEP_PAGES, **os.environ})  # noqa: S606 - this very program
    sys.exit(run(main))
