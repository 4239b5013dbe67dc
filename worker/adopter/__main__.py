"""`python -m worker.adopter RUN_DIR [--claim N] [--data DIR]`: a model version of weights that were made elsewhere."""

import sys

from worker.job_arguments import read_arguments
from worker.job_process import Stop, run


def main(stop: Stop) -> None:
    arguments = read_arguments("worker.adopter", "Run one adopt job.")
    from worker.adopter.adopting import adopt  # noqa: PLC0415 - torch takes seconds; SIGTERM is heard before

    adopt(arguments, stop)


if __name__ == "__main__":
    sys.exit(run(main))
