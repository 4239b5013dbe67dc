"""When Python looks for garbage, in a process that serves: seldom, and not through what stays."""

import gc

_NEW_OBJECTS = 20_000  # from which a collection looks through them; Python's own 700 come with a handful of requests
_YOUNGER = 20  # collections, after each of which an older generation is looked through, too


def settle() -> None:
    """Call it when all that stays is loaded: libraries, a network. A full collection would look through that for 70 ms,
    while all requests wait.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _YOUNGER, _YOUNGER)
