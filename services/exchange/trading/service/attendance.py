"""Who is connected to which session, to whichever instance, and what happens to a session that nobody is connected to.

The leader keeps the time of every session without a connection, and journals its end. An instance tells the leader which
sessions are connected to it; the dead-man timer of a session runs where its connection is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from exchange.runtime.drain import Drain
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.model import Session
from exchange.trading.replication.messages import Attendance
from exchange.trading.service.desk import Desk

UNATTENDED_S: Final = 3_600.0
"""How long a session without cancel-on-disconnect is remembered after its connection was lost."""

END_RETRY_S: Final = 0.2
"""Between two attempts to end a session while the journal is away."""

TAKE_OVER_GRACE_S: Final = 10.0
"""Time to attach again that a new leader grants to every session, beyond the session's own grace."""

LINK_LOST_GRACE_S: Final = 2.0
"""And that the leader grants when a follower is gone, with which connections may have been lost that live on."""

Key = tuple[str, str]
"""Account and name of a session."""


class SessionAttendance:
    """The sessions of an instance, connected or not. `announce` tells the leader while this instance follows."""

    def __init__(self, desk: Desk, drain: Drain, announce: Callable[[Attendance], None]) -> None:
        self.on_dead_man: Callable[[Key], None] = lambda _key: None
        """Called with a session whose client has said nothing for too long, before it is ended."""
        self._desk = desk
        self._drain = drain
        self._announce = announce
        self._here: set[Key] = set()
        self._elsewhere: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session")

    # --- connections to this instance ---

    def attached(self, key: Key) -> None:
        """A connection to the session has come."""
        self._here.add(key)
        self._cancel_timer(key)
        self._announce(Attendance(*key, attended=True))

    def heard_from(self, key: Key) -> None:
        """Its client has said something: the dead man's time begins anew."""
        session = self._session(key) if self._desk.is_seated else None
        if session is not None and session.dead_man_ms and key in self._here:
            self._set_timer(key, session.dead_man_ms / 1000)

    def detached(self, key: Key, *, for_good: bool) -> None:
        """The connection is gone; `for_good`: its client has ended the session."""
        self._here.discard(key)
        self._cancel_timer(key)
        self._announce(Attendance(*key, attended=False))
        if self._drain.is_set() or not self._desk.is_seated:
            return
        if for_good:
            self._spawn(key, cmd.close_session(*key))
        elif self._leads:
            self._start_grace(key, 0.0)

    def attended(self) -> Iterable[Attendance]:
        """Sessions that are connected here, for a new leader."""
        return [Attendance(*key, attended=True) for key in self._here]

    # --- what the leader keeps ---

    @property
    def _leads(self) -> bool:
        return self._desk.sequencer is not None

    def lead(self) -> None:
        """This instance leads now: every session gets its grace to attach again, and some more for the change."""
        self._elsewhere.clear()
        for account in self._desk.state.accounts.values():
            for session in account.sessions.values():
                key = (account.name, session.name)
                if key not in self._here:
                    self._start_grace(key, TAKE_OVER_GRACE_S)

    def follow(self) -> None:
        """This instance follows now: what is not connected here is the leader's affair."""
        self._elsewhere.clear()
        for key in [key for key in self._timers if key not in self._here]:
            self._cancel_timer(key)

    def told(self, attendance: Attendance) -> None:
        """Leading: a connection has come to another instance, or is gone from there."""
        key = (attendance.account, attendance.session)
        if attendance.attended:
            self._elsewhere.add(key)
            if key not in self._here:
                self._cancel_timer(key)
        else:
            self._elsewhere.discard(key)
            if key not in self._here:
                self._start_grace(key, 0.0)

    def attached_elsewhere(self, key: Key) -> None:
        """A session was attached, and not here. Leading: the one that asked for it may be gone already."""
        if self._leads and key not in self._here and key not in self._elsewhere:
            self._start_grace(key, LINK_LOST_GRACE_S)

    def link_lost(self, keys: set[Key]) -> None:
        """Leading: an instance is gone, to which these were connected."""
        for key in keys - self._here:
            self._elsewhere.discard(key)
            self._start_grace(key, LINK_LOST_GRACE_S)

    # --- timers ---

    def _session(self, key: Key) -> Session | None:
        holder = self._desk.account(key[0])
        return holder.sessions.get(key[1]) if holder is not None else None

    def _start_grace(self, key: Key, extra_s: float) -> None:
        session = self._session(key)
        if session is None:
            return
        seconds = session.grace_ms / 1000 if session.cancel_on_disconnect else UNATTENDED_S
        if session.dead_man_ms:
            seconds = min(seconds, session.dead_man_ms / 1000)
        self._set_timer(key, seconds + extra_s)

    def _set_timer(self, key: Key, seconds: float) -> None:
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._expire, key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, key: Key) -> None:
        self._timers.pop(key, None)
        if self._drain.is_set() or not self._desk.is_seated:
            return
        if key in self._here:
            self.on_dead_man(key)
            self._here.discard(key)
        elif key in self._elsewhere or not self._leads:
            return
        self._spawn(key, cmd.expire_session(*key))

    def _spawn(self, key: Key, command: Command) -> None:
        task = asyncio.create_task(self._end(key, command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, key: Key, command: Command) -> None:
        """End a session; while the journal is away, again and again, unless its client attaches meanwhile."""
        while not self._drain.is_set() and self._desk.is_seated:
            if key in self._here or key in self._elsewhere:
                return
            try:
                await self._desk.execute(command)
            except ServiceError as error:
                if error.reason == ErrorReason.SESSION_NOT_FOUND:
                    return
                self._log.warning("a session could not be ended yet", reason=error.reason_name)
                await asyncio.sleep(END_RETRY_S)
            else:
                return
