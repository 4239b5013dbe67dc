"""`python -m worker.exporter RUN_DIR [--claim N] [--data DIR]`: a model version as files."""

import sys

from worker.job_arguments import read_arguments
from worker.job_process import Stop, run


def main(stop: Stop) -> None:
    arguments = read_arguments("worker.exporter", "Run one export job.")
    from worker.exporter.exporting import export  # noqa: PLC0415 - torch takes seconds; SIGTERM is heard before

    export(arguments, stop)


if __name__ == "__main__":
    sys.exit(run(main))
