"""`python -m worker`: one Celery worker for this machine's device."""

import logging
import os

from models.catalog import Catalog
from store.layout import Layout
from store.logs import configure
from store.process import attach_to_parent
from store.settings import Settings
from worker.celery import build, drain_flag


def main() -> None:
    attach_to_parent()
    os.umask(0o077)
    settings = Settings()
    configure(settings.log_level, part="worker")
    for bell in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(bell).setLevel(logging.WARNING)  # two lines a bell; the supervisor tells of jobs
    layout = Layout(settings.data).create()
    Catalog(layout.models).sweep()
    options = ["--quiet", "worker", "--pool", "prefork", "--concurrency", "2", "--without-gossip", "--without-mingle"]
    options += ["--without-heartbeat"]  # events that nobody reads, and that pile up where they cannot be sent
    options += ["--loglevel", settings.log_level, "--hostname", "resnetd@%h"]
    try:
        build(settings, layout).worker_main(options)
    finally:
        drain_flag(layout).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
