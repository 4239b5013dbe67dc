"""`python -m worker` that takes no message from its queues."""

from kombu.transport.redis import Channel

from worker import idle
from worker.__main__ import main

Channel._brpop_start = lambda *_args, **_kwargs: None
idle.IDLE_SECONDS = 3.0
main()
