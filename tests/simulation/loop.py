"""An event loop whose time and order are decided by a seed, and whose callbacks belong to processes that can die.

Time jumps to the next timer when nothing is ready, and creeps a little with every callback, so that a loop of callbacks
cannot hold it up. Callbacks of one process run in the order in which they were scheduled, as asyncio promises; which
process is next is the seed's choice. A callback belongs to the process of the context that it carries:

- a process that is killed runs nothing any more, no `finally` either: SIGKILL at an await;
- one that is paused runs nothing until it is resumed, while time goes on: SIGSTOP.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

TURN_S = 0.00002
"""What a callback takes."""


class Process:
    """A simulated process: what is ready in it, and whether it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.ready: deque[asyncio.Handle] = deque()
        # What was ready when it was killed.
        self.cut_off: tuple[asyncio.Handle, ...] = ()
        # Kept for ever: a task of a dead process that were collected would run its `finally` blocks then.
        self.tasks: list[asyncio.Task[Any]] = []


_PROCESS: ContextVar[Process] = ContextVar("simulated_process")


def new_loop(rng: Random) -> SimLoop:
    """A loop at time 0."""
    # Files, sockets, signals and threads are what a simulated process must not touch: these methods stay abstract.
    return SimLoop(rng)  # type: ignore[abstract]


class SimLoop(asyncio.AbstractEventLoop):
    """See the module. `world` is the process of all that is not simulated as one: networks, faults, the auditor."""

    def __init__(self, rng: Random) -> None:
        self.world = Process("world")
        self.turns = 0
        """Callbacks that have run."""
        self.errors: list[dict[str, Any]] = []
        """What callbacks raised that nobody waits for."""
        self._rng = rng
        self._now = 0.0
        self._processes: list[Process] = [self.world]
        self._runnable: list[Process] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._ties = 0
        self._generators: dict[int, Process] = {}

    # --- processes ---

    def process(self, name: str) -> Process:
        """A new process."""
        made = Process(name)
        self._processes.append(made)
        return made

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task in a process."""
        return self.create_task(work, context=self.context_of(process))

    def context_of(self, process: Process) -> Context:
        """A context whose callbacks belong to the process."""
        context = Context()
        context.run(_PROCESS.set, process)
        return context

    def kill(self, process: Process) -> None:
        """End a process at once; nothing in it runs again."""
        process.dead = True
        process.cut_off = tuple(process.ready)
        process.ready.clear()
        if process in self._runnable:
            self._runnable.remove(process)

    def pause(self, process: Process) -> None:
        """Stop a process until `resume`."""
        process.paused = True
        if process in self._runnable:
            self._runnable.remove(process)

    def resume(self, process: Process) -> None:
        """Let a paused process go on: what has become ready meanwhile runs now."""
        if process.paused:
            process.paused = False
            if process.ready and not process.dead:
                self._runnable.append(process)

    def _make_ready(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_PROCESS, self.world)  # type: ignore[attr-defined]
        if process.dead:
            return
        process.ready.append(handle)
        if len(process.ready) == 1 and not process.paused:
            self._runnable.append(process)

    # --- running ---

    def run(self, going_on: Callable[[], bool]) -> None:
        """Run callbacks for as long as `going_on` says so, asked before each."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_dropped)
        asyncio._set_running_loop(self)
        try:
            while going_on():
                self._turn()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators[id(generator)] = copy_context().get(_PROCESS, self.world)

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        """As asyncio does: what somebody has stopped iterating is closed by a task of its process."""
        process = self._generators.pop(id(generator))
        if not process.dead:
            self.spawn(process, generator.aclose())

    def run_now(self, act: Callable[[], None]) -> None:
        """Do something in the world's process, from outside."""
        asyncio._set_running_loop(self)
        try:
            self.context_of(self.world).run(act)
        finally:
            asyncio._set_running_loop(None)

    def _turn(self) -> None:
        timers = self._timers
        if not self._runnable:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            assert timers, "nothing is ready and no timer is set: the simulation has come to a stop"
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._make_ready(handle)
        runnable = self._runnable
        if not runnable:
            return
        position = int(self._rng.random() * len(runnable)) if len(runnable) > 1 else 0
        process = runnable[position]
        ready = process.ready.popleft()
        if not process.ready:
            del runnable[position]
        self._now += TURN_S
        self.turns += 1
        if not ready.cancelled():
            ready._run()

    def died(self) -> list[tuple[str, BaseException]]:
        """Tasks that ended with an exception which nobody has asked for, and their processes.

        Not those whose callbacks, which would ask, are about to run, or were when the process was killed.
        """
        return [
            (process.name, error)
            for process in self._processes
            for task in process.tasks
            # Looked at without asking `exception()`, which would count as hearing of it.
            if task.done() and task._log_traceback and (error := task._exception) is not None
            if not any(task in (handle._args or ()) for handle in (*process.ready, *process.cut_off))
        ]

    def close_all(self) -> None:
        """Let go of every task, so that the collector of garbage finds nothing to report."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=lambda _generator: None)
        try:
            self._close_tasks()
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def _close_tasks(self) -> None:
        for process in self._processes:
            self.kill(process)
        for process in self._processes:
            for task in process.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task._log_traceback = False
                if not task.done():
                    try:
                        coroutine = task.get_coro()
                        assert coroutine is not None
                        coroutine.close()
                    except BaseException:  # noqa: BLE001 - a `finally` that waits; the process is dead, and no loss
                        pass

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # any callback will do
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context if context is not None else copy_context())
        self._make_ready(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context if context is not None else copy_context())
        self._ties += 1
        heapq.heappush(self._timers, (when, self._ties, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays among the timers until its time."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        if context is None:
            context = copy_context()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        context.get(_PROCESS, self.world).tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)
