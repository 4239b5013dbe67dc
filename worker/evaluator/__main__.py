"""`python -m worker.evaluator RUN_DIR [--claim N] [--data DIR] [--device auto]`: a model's figures on a dataset."""

import sys

from worker.job_arguments import read_arguments
from worker.job_process import Stop, run


def main(stop: Stop) -> None:
    arguments = read_arguments("worker.evaluator", "Run one evaluate job.")
    from worker.evaluator.evaluating import evaluate  # noqa: PLC0415 - torch takes seconds; SIGTERM is heard before

    evaluate(arguments, stop)


if __name__ == "__main__":
    sys.exit(run(main))
