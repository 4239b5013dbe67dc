"""Which resnetd this is."""

from importlib.metadata import PackageNotFoundError, version


def code_version() -> str:
    try:
        return version("resnetd")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
