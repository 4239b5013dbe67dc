"""`python -m worker.importer RUN_DIR [--claim N] [--data DIR]`: turn an upload into a dataset."""

import sys

from worker.job_arguments import read_arguments
from worker.job_process import Stop, run


def main(stop: Stop) -> None:
    arguments = read_arguments("worker.importer", "Run one import job.")
    from worker.importer.job import import_job  # noqa: PLC0415 - the process first takes care to die with its parent

    import_job(arguments, stop)


if __name__ == "__main__":
    sys.exit(run(main))
