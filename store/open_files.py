"""How many files and connections a process may have open at once."""

import resource

# Not more where more is allowed: some programs look at every number that there could be before they start another.
_MOST = 65_536


def raise_open_files() -> int:
    """Let this process, and those that it starts, have as many open as its hard limit lets it; how many that is.

    The usual 1,024 are fewer than the requests that may wait at once: the system would leave connections unanswered.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = max(soft, min(hard, _MOST))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
