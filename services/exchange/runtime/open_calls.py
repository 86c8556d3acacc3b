"""What runs in one server now, and ends when it must not go on: streams, and calls that take long."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from exchange.runtime.access import MethodPolicy
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import Principal, PrincipalResolver

SWEEP_S: Final = 0.25
"""How often all of them are looked at; half a microsecond each. No timer for each: there are thousands."""
LONG_CALL_S: Final = 0.5
"""A unary call that has run for less is not worth ending: its outcome would be unknown to its caller for nothing, and the
call that ends its own session would be among them.
"""

Task = asyncio.Task[Any]


@dataclass(frozen=True, slots=True)
class _Held:
    """A call of a principal that may be revoked; from `ends_from` on (seconds of perf_counter) that ends it."""

    principal: Principal
    ends_from: float


class OpenCalls:
    """The calls of one server, by the task that each is."""

    def __init__(self, resolver: PrincipalResolver, *, max_streams: int, max_write_seconds: float) -> None:
        self._resolver = resolver
        self._max_streams = max_streams
        self.max_write_seconds = max_write_seconds
        self._streams: dict[Task, MethodPolicy] = {}
        self._held: dict[Task, _Held] = {}
        self._writing: dict[Task, float] = {}
        self._ended: dict[Task, ErrorReason.ValueType] = {}
        self._sweep_scheduled = False

    @property
    def streams(self) -> int:
        """How many streams run now."""
        return len(self._streams)

    def enter_stream(self, task: Task, policy: MethodPolicy, principal: Principal) -> None:
        """Count a stream in. Raises ServiceError TOO_MANY_STREAMS."""
        if len(self._streams) >= self._max_streams:
            raise ServiceError(ErrorReason.TOO_MANY_STREAMS, metadata={"limit": self._max_streams})
        self._streams[task] = policy
        if principal.user:
            self._held[task] = _Held(principal, 0.0)
        if not self._sweep_scheduled:
            self._schedule_sweep()

    def leave_stream(self, task: Task) -> None:
        """Count a stream out."""
        self._streams.pop(task, None)
        self._writing.pop(task, None)
        self.leave_unary(task)

    def enter_unary(self, task: Task, principal: Principal, started: float) -> None:
        """Watch a call of a principal that came by token; it began at `started`, in seconds of perf_counter."""
        self._held[task] = _Held(principal, started + LONG_CALL_S)
        if not self._sweep_scheduled:
            self._schedule_sweep()

    def leave_unary(self, task: Task) -> None:
        """The call is over."""
        self._held.pop(task, None)
        self._ended.pop(task, None)

    def write_begins(self, task: Task) -> None:
        """A message of a stream is on its way; the stream ends if the client does not take it for too long."""
        self._writing[task] = time.monotonic()

    def write_ended(self, task: Task) -> None:
        """The client took it."""
        self._writing.pop(task, None)

    def drain(self, *, only_deaf: bool) -> int:
        """End open streams with DRAINING, the handler's cleanup included, and return how many.

        `only_deaf`: just those that do not watch `Drain` themselves.
        """
        tasks = [task for task, policy in self._streams.items() if policy.ends_on_drain or not only_deaf]
        for task in tasks:
            self._end(task, ErrorReason.DRAINING)
        return len(tasks)

    def why_ended(self, task: Task) -> ErrorReason.ValueType | None:
        """Why the server itself ended the call, None where it was the client; takes the cancellation back if so."""
        reason = self._ended.get(task)
        if reason is not None:
            task.uncancel()
        return reason

    def _end(self, task: Task, reason: ErrorReason.ValueType) -> None:
        self._ended[task] = reason
        task.cancel()

    def _schedule_sweep(self) -> None:
        self._sweep_scheduled = True
        asyncio.get_running_loop().call_later(min(SWEEP_S, self.max_write_seconds / 4), self._sweep)

    def _sweep(self) -> None:
        """End the streams whose client does not read, for what they hold is bounded, but not for ever; and the calls whose
        principal counts no more.
        """
        self._sweep_scheduled = False
        latest = time.monotonic() - self.max_write_seconds
        for task, since in self._writing.items():
            if since <= latest and task not in self._ended:
                self._end(task, ErrorReason.SLOW_CONSUMER)
        now = time.perf_counter()
        for task, held in self._held.items():
            reason = self._resolver.why_void(held.principal)
            if reason is not None and held.ends_from <= now and task not in self._ended:
                self._end(task, reason)
        if self._streams or self._held:
            self._schedule_sweep()
