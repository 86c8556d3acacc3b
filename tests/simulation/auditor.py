"""The auditor: it sees every frame as it lands, has a core of its own, and knows every answer that anybody was given.

Its core applies the journal as it stands in the database. Whatever an instance acknowledges, answers, applies or streams is
compared with it at once. DESIGN section 7, promises 1 to 4 and 6.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from exchange.trading import codec
from exchange.trading.core import commands as cmd
from exchange.trading.core import invariants
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import R_COMMAND, R_REASON, R_SEQUENCE, Event, Result
from exchange.trading.core.model import State
from exchange.trading.core.reasons import (
    COMMAND_NUMBER_OUT_OF_WINDOW,
    DONE,
    DUPLICATE_ID,
    REQUEST_TOO_OLD,
    SESSION_NOT_FOUND,
)
from exchange.trading.feeds.hub import accounts_of
from exchange.trading.journal.contract import GENESIS_HASH, Frame, JournalCorrupt
from exchange.trading.seat import Seat
from exchange.trading.sequencer import Committed

HASH_EVERY = 8
"""Whole states are hashed and compared at one frame in so many: it takes longer than everything else."""

FORGOTTEN_S = 10.0
"""How long after a fail-over that lost frames an instance may stop because its reads met both histories."""

_FROM_MEMORY = frozenset({DUPLICATE_ID, REQUEST_TOO_OLD, SESSION_NOT_FOUND, COMMAND_NUMBER_OUT_OF_WINDOW})

View = tuple[Any, ...]


class Auditor:
    """See the module. `durable` answers the last sequence that a fail-over of the database cannot lose, `now` the time."""

    def __init__(self, durable: Callable[[], int], now: Callable[[], float]) -> None:
        self.violation = ""
        """The first broken promise; "" while all are kept."""
        self.newest_acknowledged = 0
        self.acknowledgements = 0
        self.reads = 0
        self.hashes_compared = 0
        self.lost_frames = 0
        self.engine = Engine()
        self._durable = durable
        self._now = now
        self._lost_at = -FORGOTTEN_S
        self._epochs: set[int] = set()
        self._frames: list[Frame] = []
        self._by_hash: dict[bytes, Frame] = {}
        self._results: list[Result] = [()]  # by sequence
        self._views: dict[str, list[tuple[int, View]]] = {}
        self._state_hashes: dict[bytes, str] = {}  # by frame
        self._tags: dict[tuple[str, int], int] = {}
        self._ids: dict[tuple[Any, ...], int] = {}
        self._supply: dict[int, int] = {}
        self._holds: dict[tuple[str, str], tuple[int, int]] = {}
        self._applied: dict[str, int] = {}
        self._tainted: set[str] = set()
        self._acknowledged: list[Result] = []

    def broken(self, what: str) -> None:
        """A promise is broken."""
        if not self.violation:
            self.violation = what

    # --- the journal ---

    @property
    def head(self) -> tuple[int, bytes]:
        """Where the journal ends."""
        return (self._frames[-1].last_sequence, self._frames[-1].hash) if self._frames else (0, GENESIS_HASH)

    def leads(self, node: str, epoch: int) -> None:
        """An instance begins to lead. It may have slept since it took the lease, and be deposed without knowing."""
        if epoch in self._epochs:
            self.broken(f"{node} leads under epoch {epoch}, as somebody has done before")
        self._epochs.add(epoch)

    def landed(self, frame: Frame, epoch: int) -> None:
        """A frame stands in the database, while an epoch is in force there."""
        sequence, frame_hash = self.head
        place = f"frame {frame.first_sequence}..{frame.last_sequence} of epoch {frame.epoch}"
        if (frame.first_sequence, frame.prev_hash) != (sequence + 1, frame_hash):
            self.broken(f"{place} does not follow the journal's head {sequence}: two leaders append")
            return
        if frame.epoch != epoch:
            self.broken(f"{place} landed under epoch {epoch}: two leaders append")
            return
        self._apply(frame)

    def lost(self, frames: list[Frame]) -> None:
        """A fail-over has lost frames that could be seen. Whoever has applied them may answer from them until it knows."""
        self.lost_frames += len(frames)
        self._lost_at = self._now()
        first = frames[0].first_sequence
        self._tainted |= {name for name, sequence in self._applied.items() if sequence >= first}
        kept = self._frames[: -len(frames)]
        self.engine = Engine()
        self._frames, self._results = [], [()]
        self._views, self._tags, self._ids, self._supply, self._holds = {}, {}, {}, {}, {}
        for frame in kept:
            self._apply(frame)

    def _apply(self, frame: Frame) -> None:
        try:
            frame.verify()
            events: list[list[Event]] = []
            for offset, command in enumerate(codec.decode_commands(frame.commands)):
                sequence = frame.first_sequence + offset
                events.append(self.engine.apply(sequence, frame.time_ns, command))
                self._results.append(self.engine.result)
                self._note_views(command, events[-1], sequence)
                self._check_once(command, self.engine.result, sequence)
                self._check_money(command, self.engine.result, sequence)
        except (AssertionError, JournalCorrupt) as error:
            self.broken(f"the journal cannot be applied from {frame.first_sequence} on: {error!r}")
            return
        if codec.encode_events(events) != frame.events:
            self.broken(
                f"the frame {frame.first_sequence}..{frame.last_sequence} holds other events than its commands make"
            )
        self._frames.append(frame)
        self._by_hash[frame.hash] = frame
        if len(self._frames) % HASH_EVERY == 0:
            self._state_hashes[frame.hash] = self.engine.state_hash()
            state = self.engine.state
            for market in state.markets:
                self._check_findings(invariants.check_market(state, market))
            self._check_findings(invariants.check_money(state))

    def _check_findings(self, findings: list[invariants.Finding]) -> None:
        for name, holds, detail in findings:
            if not holds:
                self.broken(f"{name} does not hold at {self.engine.state.sequence}: {detail}")

    def _check_once(self, command: Command, result: Result, sequence: int) -> None:
        """Promise 2: each request stands in the journal once."""
        account = command[cmd.C_ACCOUNT]
        kind = command[cmd.C_KIND]
        if kind in (cmd.CLOSE_SESSION, cmd.EXPIRE_SESSION) and result[R_REASON] == DONE:
            ended = ("number", account, command[cmd.C_BODY])
            self._ids = {key: at for key, at in self._ids.items() if key[:3] != ended}
        keys: list[tuple[Any, ...]] = []
        if command[cmd.C_REQUEST_ID]:
            keys.append(("id", account, kind == cmd.PLACE, command[cmd.C_REQUEST_ID]))
        if command[cmd.C_SESSION]:
            session, number = command[cmd.C_SESSION], command[cmd.C_NUMBER]
            keys.append(("number", account, session, number))
            if number > 1 and ("number", account, session, number - 1) not in self._ids:
                self.broken(
                    f"number {number} of {account}'s session {session} was applied at {sequence}, {number - 1} never"
                )
        if command[cmd.C_REQUEST_TIME]:
            keys.append(("tag", account, command[cmd.C_REQUEST_TIME]))
            self._tags[account, command[cmd.C_REQUEST_TIME]] = sequence
        for key in keys:
            if key in self._ids:
                self.broken(f"{key} was applied at {self._ids[key]} and again at {sequence}")
            self._ids[key] = sequence

    def _check_money(self, command: Command, result: Result, sequence: int) -> None:
        """Promise 3: what all accounts hold is what came in less what went out, at every sequence."""
        kind, account = command[cmd.C_KIND], command[cmd.C_ACCOUNT]
        if result[R_REASON] == DONE:
            if kind == cmd.CREDIT:
                asset = command[cmd.F_ASSET]
                self._supply[asset] = self._supply.get(asset, 0) + command[cmd.F_AMOUNT]
            elif kind == cmd.HOLD:
                self._holds[account, command[cmd.C_REQUEST_ID]] = (command[cmd.F_ASSET], command[cmd.F_AMOUNT])
            elif kind == cmd.SETTLE_HOLD:
                asset, amount = self._holds.pop((account, command[cmd.H_HOLD_ID]))
                self._supply[asset] -= amount
        totals: dict[int, int] = {}
        for holder in self.engine.state.accounts.values():
            for asset, balance in holder.balances.items():
                totals[asset] = totals.get(asset, 0) + balance.available + balance.held
        for asset, total in totals.items():
            if total != self._supply.get(asset, 0):
                self.broken(f"asset {asset}: accounts hold {total} at {sequence}, {self._supply.get(asset, 0)} came in")

    @staticmethod
    def view_of(state: State, name: str) -> View:
        """What a read shows of an account: its money and its open orders."""
        account = state.accounts.get(name)
        if account is None:
            return ()
        return (
            tuple((asset, balance.available, balance.held) for asset, balance in sorted(account.balances.items())),
            tuple((order.order_id, order.price, order.lots_open) for order in account.orders.values()),
        )

    def _note_views(self, command: Command, events: list[Event], sequence: int) -> None:
        names = {command[cmd.C_ACCOUNT]: None}
        for event in events:
            names.update(dict.fromkeys(accounts_of(event)))
        for name in names:
            self._views.setdefault(name, []).append((sequence, self.view_of(self.engine.state, name)))

    # --- what instances say ---

    def acknowledged(self, node: str, commands: list[Command], results: list[Result]) -> None:
        """Promise 1: what an instance says was done is in the journal, durable, and came out like that."""
        for command, result in zip(commands, results, strict=True):
            self.acknowledgements += 1
            sequence = result[R_SEQUENCE]
            if sequence > self._durable():
                self.broken(f"{node} acknowledged {sequence}, durable is {self._durable()}: {command}")
                return
            if self._results[sequence] == result:
                if result[R_COMMAND][cmd.C_BODY :] != command[cmd.C_BODY :]:
                    self.broken(f"{node} answered {command} with the result of {result[R_COMMAND]}")
                self._acknowledged.append(result)
            elif result[R_REASON] not in _FROM_MEMORY:
                self.broken(f"{node} acknowledged {result}, the journal says {self._results[sequence]}")
            self.newest_acknowledged = max(self.newest_acknowledged, sequence)

    def told(self, commands: list[Command], results: list[Result]) -> None:
        """A client that still waits is not told that something was refused which was applied."""
        for command, result in zip(commands, results, strict=True):
            at = self._tags.get((command[cmd.C_ACCOUNT], command[cmd.C_REQUEST_TIME]))
            if result[R_REASON] in _FROM_MEMORY and self._results[result[R_SEQUENCE]] != result and at is not None:
                self.broken(f"{command} was refused for reason {result[R_REASON]}, but it was applied at {at}")

    def read(self, node: str, account: str, sequence: int, view: View, at_least: int) -> None:
        """No dirty read: an answer shows the journal as of a sequence that stands in it, and is as new as it had to be."""
        self.reads += 1
        if node in self._tainted:
            return
        if sequence > self.head[0]:
            self.broken(f"{node} showed {account} as of {sequence}, the journal ends at {self.head[0]}")
        elif view != self._view_at(account, sequence):
            self.broken(f"{node} showed {account} as of {sequence}: {view}, it was {self._view_at(account, sequence)}")
        elif sequence < at_least:
            self.broken(f"{node} showed {account} as of {sequence}, a read of {at_least} or later was due")

    def _view_at(self, account: str, sequence: int) -> View:
        views = self._views.get(account, [])
        position = bisect_right(views, sequence, key=lambda entry: entry[0])
        return views[position - 1][1] if position else ()

    def joined(self, node: str, seat: Seat) -> None:
        """An instance has a new core."""
        self._tainted.discard(node)
        self._applied[node] = seat.committed_sequence
        if seat.committed_sequence and seat.committed_hash not in self._by_hash:
            self.broken(f"{node} recovered to {seat.committed_sequence}, after a frame that never was")
        self._compare(node, seat, seat.committed_hash)

    def applied(self, node: str, seat: Seat, frame: Committed) -> None:
        """Promise 4: an instance has applied a frame, and its core is what ours was there."""
        self._applied[node] = frame.last_sequence
        if frame.frame_hash not in self._by_hash:
            self.broken(f"{node} let out the frame {frame.first_sequence}..{frame.last_sequence}, which never landed")
        if seat.engine.state.sequence == frame.last_sequence:
            self._compare(node, seat, frame.frame_hash)

    def _compare(self, node: str, seat: Seat, frame_hash: bytes) -> None:
        ours = self._state_hashes.get(frame_hash)
        if ours is None:
            return
        self.hashes_compared += 1
        theirs = seat.engine.state_hash()
        if theirs != ours:
            self.broken(
                f"{node} has the state {theirs[:16]} at {seat.engine.state.sequence}, the journal gives {ours[:16]}"
            )

    def streamed(self, reader: str, position: tuple[int, bytes], committed: Committed) -> tuple[int, bytes]:
        """Promise 6: what a stream shows next follows what it showed before. Answers its new position."""
        frame = self._by_hash.get(committed.frame_hash)
        place = f"{reader} was shown {committed.first_sequence}..{committed.last_sequence} after {position[0]}"
        if frame is None:
            self.broken(f"{place}: such a frame never landed")
        elif (frame.first_sequence, frame.prev_hash) != (position[0] + 1, position[1]):
            self.broken(f"{place}: a gap that nobody reported")
        elif codec.encode_events(committed.events) != frame.events:
            self.broken(f"{place}: with other events than the journal's")
        return committed.last_sequence, committed.frame_hash

    def instance_ended(self, node: str, error: Exception) -> None:
        """An instance has stopped by itself: only a journal that has lost what it had shown excuses that."""
        excused = isinstance(error, JournalCorrupt) and self._now() < self._lost_at + FORGOTTEN_S
        if not excused:
            self.broken(f"{node} ended with {type(error).__name__}: {error}")

    # --- the end ---

    def final(self, seats: dict[str, Seat | None], streams: dict[str, tuple[int, bytes]]) -> None:
        """All faults are over and all is quiet: every instance and stream stands at the journal's end."""
        for result in self._acknowledged:
            if self._results[result[R_SEQUENCE]] != result:
                self.broken(f"{result} was acknowledged, the journal says {self._results[result[R_SEQUENCE]]}")
        ours = self.engine.state_hash()
        for node, seat in seats.items():
            if seat is None or (seat.committed_sequence, seat.committed_hash) != self.head:
                self.broken(f"{node} stands at {seat and seat.committed_sequence}, the journal ends at {self.head[0]}")
            elif seat.engine.state_hash() != ours:
                self.broken(f"{node} has another state than the journal gives at {self.head[0]}")
        for reader, position in streams.items():
            if position != self.head:
                self.broken(f"{reader} stands at {position[0]}, the journal ends at {self.head[0]}")
