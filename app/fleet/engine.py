"""One engine process, kept alive: started, proven, pinged, started again when it dies or hangs."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from app.fleet.plan import backoff
from app.inference.connection import Connection
from app.inference.protocol import DAMAGED_STATUS
from app.inference.routes import EngineState, Route
from store.process import child_environment

log = logging.getLogger(__name__)

_CALLED_FAILED = 3  # starts in a row that failed, after which waiting clients are told
_DRAIN_SECONDS = 12.0
_FOUND_SECONDS = 2.0  # in which whoever waits for an engine, and looks every 50 ms, sees that it is ready and asks it
_FLIP_SECONDS = 0.2  # in which requests that read the old routing table reach the old engine

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Patience:
    """How long what may take, in seconds. A ping waits for one batch of the largest network."""

    start: float = 300.0  # a large network, from a slow disk
    ping_every: float = 2.0
    ping: float = 10.0
    pings_missed: int = 3  # in a row, before it is called a hang
    stable: float = 30.0  # an engine that was ready for so long is not counted among those that keep failing


class _Said(BaseModel):
    """A line that an engine prints when it is ready, or cannot be, and when what it computes with has changed."""

    model_config = ConfigDict(frozen=True)

    state: EngineState
    device: str | None = None
    reason: str | None = None
    runtime: dict[str, Any] | None = None


class Engine:
    """`on_change` is called after every change of `route`, within the event loop."""

    def __init__(
        self,
        *,
        model: str,
        version: int,
        folder: Path,
        run: Path,
        device: str,
        on_change: Callable[[], None],
        patience: Patience = Patience(),
    ) -> None:
        self.model = model
        self.version = version
        self._folder = folder
        self._run = run
        self._asked_device = device
        self._on_change = on_change
        self._patience = patience
        self._state = EngineState.STARTING
        self._socket = self._new_socket()
        self._process: Process | None = None
        self._device = device
        self._reason: str | None = None
        self._runtime: dict[str, Any] | None = None
        self._restarts = 0
        self._ready_since: float | None = None  # by the loop's clock, in the life of the process that is or was last
        self._settled = asyncio.Event()
        self._retry = asyncio.Event()
        self._used = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._keep_alive())

    @property
    def route(self) -> Route:
        return Route(
            model=self.model,
            version=self.version,
            state=self._state,
            socket=str(self._socket),
            pid=self._process.pid if self._process else None,
            device=self._device,
            reason=self._reason,
            restarts=self._restarts,
            runtime=self._runtime,
        )

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def idle_seconds(self) -> float:
        """Seconds since a request was here, as far as the last ping told; endless for one that has failed."""
        return float("inf") if self._state is EngineState.FAILED else asyncio.get_running_loop().time() - self._used

    @property
    def may_go(self) -> bool:
        """Whether it may make room for another: not while it is loaded for somebody, nor before they could use it."""
        if self._state is not EngineState.READY or self._ready_since is None:
            return self._state is EngineState.FAILED
        return asyncio.get_running_loop().time() - self._ready_since > _FOUND_SECONDS

    async def settle(self) -> Route:
        """Wait until it is ready or has failed. One that has failed is started again after its back-off."""
        self._used = asyncio.get_running_loop().time()
        if self._state is EngineState.FAILED:
            self._retry.set()
        await self._settled.wait()
        return self.route

    async def drain(self) -> None:
        """Leave the routing table, let the process finish what it has, and end it."""
        self._task.cancel()
        self._change(EngineState.DRAINING, reason=self._reason)
        await asyncio.sleep(_FLIP_SECONDS)
        await self.stop(seconds=_DRAIN_SECONDS)

    async def stop(self, *, seconds: float) -> None:
        """End the process: by SIGTERM, and after `seconds` by SIGKILL."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None:
            _signal(self._process, signal.SIGTERM)
            try:
                async with asyncio.timeout(seconds):
                    await self._process.wait()
            except TimeoutError:
                log.warning("an engine did not stop and is killed", extra=self._names())
                _signal(self._process, signal.SIGKILL)
                await self._process.wait()
            self._process = None
        self._socket.unlink(missing_ok=True)

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._ready_since = None
            try:
                status, reason = await self._live()
            except Exception as error:  # whatever it is: what nobody watches would be called ready for ever
                log.exception("an engine could not be started or watched", extra=self._names())
                status, reason = 1, f"it could not be started or watched: {str(error) or type(error).__name__}"
                if self._process is not None:
                    _signal(self._process, signal.SIGKILL)
            # From when it was ready: one that loads for minutes and dies of its first request must not look stable.
            if self._ready_since is not None and loop.time() - self._ready_since > self._patience.stable:
                failures = 0
            failures += 1
            self._restarts += 1
            self._socket.unlink(missing_ok=True)
            self._process = None
            hopeless, wait = status == DAMAGED_STATUS, backoff(failures)  # hopeless: starting again changes nothing
            log.error("an engine ended", extra={**self._names(), "reason": reason, "status": status, "retry_in": wait})
            failed = hopeless or failures >= _CALLED_FAILED
            self._change(EngineState.FAILED if failed else EngineState.STARTING, reason=reason)
            self._retry.clear()
            await asyncio.sleep(wait)
            if hopeless:
                await self._retry.wait()  # until somebody asks for it again
            self._socket = self._new_socket()
            self._change(EngineState.STARTING, reason=reason)

    async def _live(self) -> tuple[int, str]:
        """One process from its start to its end: exit status (negative: the signal) and the reason in words."""
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.engine",
            str(self._folder),
            *("--socket", str(self._socket), "--model", self.model, "--version", str(self.version)),
            *("--device", self._asked_device),
            stdin=DEVNULL,
            stdout=PIPE,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C is for the fleet, which lets engines finish
        )
        self._runtime = None
        self._on_change()
        reason = await self._first_words(process)
        if reason is None:
            self._ready_since = self._used = asyncio.get_running_loop().time()  # somebody wanted it, for now
            self._change(EngineState.READY, reason=None)
            log.info("an engine is ready", extra={**self._names(), "pid": process.pid, "device": self._device})
            reason = await self._watch(process)
        status = await process.wait()
        return status, reason or _ending(status)

    async def _first_words(self, process: Process) -> str | None:
        """None when the engine says that it is ready; else why it is not, or "" where it ended without a word."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            async with asyncio.timeout(self._patience.start):
                line = await process.stdout.readline()
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            return f"it was not ready after {self._patience.start:g} s"
        if not line:
            return ""
        try:
            said = _Said.model_validate(orjson.loads(line))
        except ValueError:
            _signal(process, signal.SIGKILL)
            return f"it printed {line[:100]!r} where it should say that it is ready"
        if said.state is not EngineState.READY:
            return said.reason or ""
        self._device, self._runtime = said.device or self._device, said.runtime
        return None

    async def _hear(self, process: Process) -> None:
        """What a ready engine says later on: that it has changed over to a faster runtime."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while line := await process.stdout.readline():
            try:
                self._runtime = _Said.model_validate(orjson.loads(line)).runtime
            except ValueError:
                log.warning("an engine said something strange", extra={**self._names(), "said": repr(line[:100])})
                continue
            self._on_change()

    async def _watch(self, process: Process) -> str:
        """Ping a ready engine until it ends. Why it was ended, "" where it ended by itself."""
        ended = asyncio.create_task(process.wait())
        hearing = asyncio.create_task(self._hear(process))
        missed = 0
        try:
            while not ended.done():
                why = await self._ping()
                missed = 0 if why is None else missed + 1
                if missed == self._patience.pings_missed and not ended.done():
                    _signal(process, signal.SIGKILL)
                    return f"it hung: {why}"
                await asyncio.wait({ended}, timeout=self._patience.ping_every)
            return ""
        finally:
            ended.cancel()
            hearing.cancel()

    async def _ping(self) -> str | None:
        """None where the engine computed an answer, else why not."""
        try:
            async with asyncio.timeout(self._patience.ping):
                connection = await Connection.open(str(self._socket))
                try:
                    answer = await connection.request("ping", {"timeout": self._patience.ping})
                finally:
                    await connection.close()
        except TimeoutError:
            return f"no answer to a ping within {self._patience.ping:g} s"
        except OSError as error:
            return f"no connection: {error}"
        if "error" in answer:
            return f"the ping failed: {answer['error']['message']}"
        self._used = max(self._used, asyncio.get_running_loop().time() - float(answer["idle_seconds"]))
        return None

    def _change(self, state: EngineState, *, reason: str | None) -> None:
        self._state, self._reason = state, reason
        if state is EngineState.STARTING:
            self._settled.clear()
        else:
            self._settled.set()
        self._on_change()

    def _new_socket(self) -> Path:
        return self._run / f"engine-{os.getpid()}-{next(_numbers)}.sock"

    def _names(self) -> dict[str, object]:
        return {"model": self.model, "version": self.version}


def _signal(process: Process, number: signal.Signals) -> None:
    """Signal our own child, which cannot be mistaken for another while nobody has waited for it."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _ending(status: int) -> str:
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}"
