"""How many cores torch's operations take, which is a property of the thread that calls them."""

import threading

import torch

_here = threading.local()


def use_threads(count: int) -> None:
    """Let this thread's torch operations take `count` cores from now on; other threads keep their own number."""
    if getattr(_here, "count", None) != count:
        torch.get_num_threads()  # a thread's first question sets its number anew: let that be before ours
        torch.set_num_threads(count)
        _here.count = count
