"""`python -m worker`, but its jobs are the toy's."""

from jobs.model import Kind
from worker import child
from worker.__main__ import main

child.PROGRAMS.update(dict.fromkeys(Kind, "toy_job"))
main()
