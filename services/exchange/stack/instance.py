"""One process of a service: started, watched, started again."""

from __future__ import annotations

import asyncio
import os
import time
from enum import Enum
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError
from exchange.stack.files import tail
from exchange.stack.processes import ProcessId, identify
from exchange.stack.spawn import spawn

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from pathlib import Path

    from exchange.stack.service import Launch, Service

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
# An instance that was ready for so long had started well: its next failure counts as the first.
STEADY_S = 1.0

_PROBE_INTERVAL_S = 0.02
_LOG_LINES = 8


class State(Enum):
    """What an instance is doing; the value is what `pincex status` shows."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Instance:
    """Keeps one process of `service` running until it is told to stop.

    `changed` is called after each change of state. The task of `run` ends with StackError if the first start fails:
    what never worked is a fault to show, not one to retry. Later failures are met with a start after a delay that
    doubles from 0.1 s to 5 s.
    """

    def __init__(self, service: Service, number: int, logs: Path, changed: Callable[[Instance], None]) -> None:
        """Starts nothing yet."""
        traits = service.traits
        self.service = service
        self.number = number
        self.name = f"{traits.name}-{number}" if traits.numbered else traits.name
        self.log = logs / f"{self.name}.log"
        self.state = State.WAITING
        self.identity: ProcessId | None = None
        self.restarts = 0
        self.ready = asyncio.Event()
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._forgiven = False
        self._timed_out = False
        self._told_to_stop = asyncio.Event()
        self._successor: asyncio.Future[int] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, if any."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Returns once stopped. Raises StackError if the very first start does not become ready."""
        failures = 0
        while not self._told_to_stop.is_set():
            ready_since = None
            try:
                ready_since = await self._run_once()
            except StackError as error:
                if not self.ready.is_set():
                    raise
                self._no_successor(error)
            if self._told_to_stop.is_set():
                break
            if not self.ready.is_set():
                raise StackError(self._explain())
            if ready_since is None:
                self._no_successor(StackError(self._explain()))
            steady = ready_since is not None and time.monotonic() - ready_since >= STEADY_S
            failures = 1 if steady or self._forgiven else failures + 1
            self._forgiven = False
            self._enter(State.RESTARTING)
            await self._pause(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (failures - 1)))
            self.restarts += 1
        self._no_successor(StackError(f"{self.name} was stopped"))
        self._enter(State.STOPPED)

    def kill(self, number: signal.Signals) -> int:
        """Sends a signal to the process, returns its pid. An operator's kill does not lengthen the delay."""
        process, pid = self._process, self.pid
        if process is None or pid is None:
            raise StackError(f"{self.name} is not running now (state: {self.state.value})")
        self._forgiven = True
        process.send_signal(number)
        return pid

    async def stop(self) -> None:
        """Ends the process by its service's signal, by SIGKILL when it takes too long, and starts it no more."""
        self._told_to_stop.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._enter(State.STOPPING)
        await self._end(process)

    async def restart(self) -> int:
        """Ends the process as `stop` does; returns the pid of the next one once that is ready. Raises StackError if this one
        is not ready now, or the next one does not become ready; it is then tried again like one that died.
        """
        process = self._process
        if process is None or self.state is not State.READY or self._successor is not None:
            raise StackError(f"{self.name} is {self.state.value}: it can be restarted when it is ready")
        self._forgiven = True
        self._successor = asyncio.get_running_loop().create_future()
        self._enter(State.STOPPING)
        try:
            await self._end(process)
            return await self._successor
        finally:
            self._successor = None

    def _no_successor(self, error: StackError) -> None:
        if self._successor is not None and not self._successor.done():
            self._successor.set_exception(error)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        traits = self.service.traits
        _send(process, traits.stop_signal)
        try:
            async with asyncio.timeout(traits.stop_timeout_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _run_once(self) -> float | None:
        """One life of the process; returns since when (monotonic seconds) it was ready, None if it never was."""
        self._enter(State.STARTING)
        self._timed_out = False
        if not await self._may_start():
            return None
        process = self._process = await self._spawn(self.service.launch(self.number))
        self.identity = identify(process.pid)
        self._changed(self)
        await self._stop_if_told()  # it may have been while the process was being made
        ready_since = None
        if await self._becomes_ready(process):
            ready_since = time.monotonic()
            self._enter(State.READY)
            self.ready.set()
            if self._successor is not None and not self._successor.done():
                self._successor.set_result(process.pid)
        elif process.returncode is None and not self._told_to_stop.is_set():
            self._timed_out = True
            process.kill()
        await process.wait()
        self.identity = None
        return ready_since

    async def _may_start(self) -> bool:
        """Lets the service do what must come before this start. False if a stop came first. Raises StackError."""
        preparing = asyncio.ensure_future(self.service.before_start(self.number))
        stopping = asyncio.create_task(self._told_to_stop.wait())
        try:
            await asyncio.wait((preparing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not preparing.done():
                return False
            preparing.result()
            return not self._told_to_stop.is_set()
        finally:
            preparing.cancel()
            stopping.cancel()
            await asyncio.gather(preparing, stopping, return_exceptions=True)

    async def _stop_if_told(self) -> None:
        if self._told_to_stop.is_set():
            await self.stop()

    async def _spawn(self, launch: Launch) -> asyncio.subprocess.Process:
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await spawn(launch, output)
        except OSError as error:
            raise StackError(f"{self.name} could not be started: {error}") from error
        finally:
            os.close(output)

    async def _becomes_ready(self, process: asyncio.subprocess.Process) -> bool:
        deadline = time.monotonic() + self.service.traits.ready_timeout_s
        while process.returncode is None and not self._told_to_stop.is_set() and time.monotonic() < deadline:
            if await self.service.is_ready(self.number):
                return True
            await asyncio.sleep(_PROBE_INTERVAL_S)
        return False

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._told_to_stop.wait()
        except TimeoutError:
            return

    def _explain(self) -> str:
        status = self._process.returncode if self._process is not None else None
        limit_s = self.service.traits.ready_timeout_s
        how = f"not ready after {limit_s:g} s" if self._timed_out else f"exit status {status}"
        last = "".join(f"\n    {line}" for line in tail(self.log, _LOG_LINES))
        return f"{self.name} did not start ({how}); log: {self.log}{last}"

    def _enter(self, state: State) -> None:
        self.state = state
        self._changed(self)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return
