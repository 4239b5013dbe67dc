"""What clients had loaded when a fleet ended, loaded again by the next one: they asked for it once, with `:load`."""

import asyncio
import logging
from contextlib import suppress

from app.fleet.fleet import Fleet, NoRoom
from app.fleet.plan import Key
from models.catalog import ModelNotFound

log = logging.getLogger(__name__)


async def load_again(fleet: Fleet) -> None:
    """One after the other, behind the engines that start by themselves, and in the place of none.

    Each is off the record until it is ready: a version whose loading ends the fleet, for want of memory say, does so
    once.
    """
    loaded = fleet.proven.loaded
    missing = sorted(loaded)
    await fleet.settled()
    for key in missing:
        if key not in loaded:
            continue  # it was unloaded meanwhile
        loaded.discard(key)
        _write(fleet)
        await _load(fleet, key)
        if key not in loaded:
            log.warning("a version that was loaded is not any more", extra={"model": key[0], "version": key[1]})


async def _load(fleet: Fleet, key: Key) -> None:
    try:
        with suppress(ModelNotFound, NoRoom, OSError):
            if fleet.fits(key):
                await fleet.ensure(*key, keep=True)
    except asyncio.CancelledError:  # the fleet is told to end, which is not the version's fault
        fleet.proven.loaded.add(key)
        _write(fleet)
        raise


def _write(fleet: Fleet) -> None:
    with suppress(OSError):  # which the fleet tells, and tries again
        fleet.proven.write()
