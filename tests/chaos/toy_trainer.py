"""`python -m toy_trainer RUN_DIR --claim N …`: a toy training, as a job's own process."""

import sys

from worker.job_process import Stop, run


def main(stop: Stop) -> None:
    from toy_training import train  # noqa: PLC0415 - its imports take a while; SIGTERM is heard from the start

    train(stop)


if __name__ == "__main__":
    sys.exit(run(main))
