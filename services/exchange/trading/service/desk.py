"""What all services of one engine instance share: the core that leads now, the way into it, and the scales."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from exchange.domain.symbols import canonical_symbol
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core import keys
from exchange.trading.core.commands import (
    C_KIND,
    C_REQUEST_ID,
    CANCEL,
    P_MARKET,
    P_SIDE,
    PLACE,
    REDUCE,
    REPLACE,
    X_CLIENT_ORDER_ID,
    X_ORDER_ID,
    Command,
)
from exchange.trading.core.constants import BUY
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import R_REASON, Result
from exchange.trading.core.model import Account, Asset, Market, State
from exchange.trading.core.reasons import (
    DONE,
    INSUFFICIENT_FUNDS,
    ORDER_CLOSED,
    ORDER_NOT_FOUND,
    TOO_MANY_OPEN_ORDERS,
)
from exchange.trading.journal.contract import Journal
from exchange.trading.replication.messages import FOLLOWER, LEADER
from exchange.trading.seat import Overloaded, Seat, Stalled, Stopped
from exchange.trading.sequencer import Sequencer
from exchange.trading.service.units import MarketUnits

READ_WAIT_S: Final = 2.0
"""How long a read waits for its `min_sequence`."""

Found = TypeVar("Found")

_NOT_FOUND: Final = frozenset({ErrorReason.UNKNOWN_SYMBOL, ErrorReason.UNKNOWN_ASSET, ErrorReason.ORDER_NOT_FOUND})


class Desk:
    """The instance's way to its core."""

    def __init__(self, *, instance: str, journal: Journal, clock: Clock) -> None:
        self.instance = instance
        self.journal = journal
        self.clock = clock
        self.snapshot_sequence = 0
        self._seat: Seat | None = None
        self._units: list[MarketUnits] = []

    def sit(self, seat: Seat | None) -> None:
        """Serve from this seat; None: from none, until the next."""
        self._units = []
        self._seat = seat

    @property
    def seat(self) -> Seat:
        """The core in use. Raises ServiceError NOT_READY while there is none."""
        if self._seat is None:
            raise ServiceError(ErrorReason.NOT_READY)
        return self._seat

    @property
    def is_seated(self) -> bool:
        """Whether there is a core to serve from."""
        return self._seat is not None

    @property
    def sequencer(self) -> Sequencer | None:
        """The sequencer, while this instance leads."""
        return self._seat if isinstance(self._seat, Sequencer) else None

    @property
    def role(self) -> str:
        """LEADER or FOLLOWER."""
        return FOLLOWER if self.sequencer is None else LEADER

    @property
    def engine(self) -> Engine:
        """The core. Raises ServiceError NOT_READY."""
        return self.seat.engine

    @property
    def state(self) -> State:
        """The core's state, which may be ahead of the journal: call `settle` before an answer leaves."""
        return self.seat.engine.state

    # --- names ---

    def market(self, symbol: str, field: str = "symbol") -> tuple[Market, MarketUnits]:
        """A market by any form of its name. Raises ServiceError FIELD_REQUIRED or UNKNOWN_SYMBOL."""
        state = self.state
        index = state.market_index.get(symbol)
        if index is None:
            if not symbol:
                raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": field})
            index = state.market_index.get(canonical_symbol(symbol))
            if index is None:
                raise ServiceError(ErrorReason.UNKNOWN_SYMBOL, metadata={"symbol": symbol})
        return state.markets[index], self.units(index)

    def units(self, index: int) -> MarketUnits:
        """The scales of a market by its number."""
        known = self._units
        if index < len(known):
            return known[index]
        while len(known) <= index:
            state = self.state
            known.append(MarketUnits(state, state.markets[len(known)]))
        return known[index]

    def asset(self, code: str) -> Asset:
        """An asset by its code. Raises ServiceError FIELD_REQUIRED or UNKNOWN_ASSET."""
        state = self.state
        index = state.asset_index.get(code.upper())
        if index is None:
            if not code:
                raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "asset"})
            raise ServiceError(ErrorReason.UNKNOWN_ASSET, metadata={"asset": code})
        return state.assets[index]

    def account(self, name: str) -> Account | None:
        """An account, or None if the engine has never heard of it."""
        return self.state.accounts.get(name)

    # --- doing ---

    async def execute(self, command: Command) -> Result:
        """Apply one command durably. Raises ServiceError: the refusal of the core, or why the outcome is unknown."""
        result = (await self.submit([command]))[0]
        if result[R_REASON] != DONE:
            raise self.refusal(result[R_REASON], command)
        return result

    async def submit(self, commands: list[Command]) -> list[Result]:
        """Apply commands durably, in order; one result for each, refusals included.

        Raises ServiceError OVERLOADED, or JOURNAL_UNAVAILABLE or NOT_READY when the outcome is unknown.
        """
        return await self.settled(self.enqueue(commands))

    def enqueue(self, commands: list[Command]) -> asyncio.Future[list[Result]]:
        """Queue commands at once. Raises ServiceError OVERLOADED, JOURNAL_UNAVAILABLE or NOT_READY."""
        seat = self.seat
        try:
            return seat.submit(commands)
        except Overloaded:
            raise ServiceError(
                ErrorReason.OVERLOADED, metadata={"limit": f"{seat.max_queued_commands} queued commands"}
            ) from None
        except Stalled:
            who = "journal" if self.sequencer is not None else "leader"
            raise ServiceError(
                ErrorReason.JOURNAL_UNAVAILABLE, f"the {who} does not answer: nothing was done"
            ) from None
        except Stopped:
            raise ServiceError(ErrorReason.NOT_READY) from None

    async def settled(self, future: asyncio.Future[list[Result]]) -> list[Result]:
        """The results of a submission. Raises ServiceError JOURNAL_UNAVAILABLE when its outcome is unknown."""
        try:
            return await future
        except Overloaded:
            # The leader's word, over the link.
            raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": "queued commands of the leader"}) from None
        except (Stalled, Stopped):
            raise ServiceError(
                ErrorReason.JOURNAL_UNAVAILABLE, "the outcome is unknown: ask again with the same id"
            ) from None

    async def settle(self) -> None:
        """Wait until all that the core has applied is durable; an answer made before may leave then."""
        barrier = self.seat.barrier()
        if barrier is not None:
            await self.settled(barrier)

    async def reach(self, sequence: int, known: int = 0) -> None:
        """Be as new as a read must be: at its `min_sequence`; without one, or where it speaks of a later sequence `known`,
        at all that was durable before it. While nobody leads, or the leader does not say where it stands, a read is
        answered from what is here.

        Raises ServiceError SEQUENCE_NOT_REACHED for a `min_sequence` that does not come within READ_WAIT_S.
        """
        if sequence > self.seat.committed_sequence:
            await self._reach(sequence)
        if not sequence or known > self.seat.committed_sequence:
            await self.fresh()

    async def fresh(self) -> bool:
        """See `Seat.fresh`; a change of seats meanwhile starts it anew."""
        while True:
            seat = self.seat
            try:
                return await seat.fresh()
            except Stopped:
                if self._seat is seat:
                    return False

    async def _reach(self, sequence: int) -> None:
        try:
            async with asyncio.timeout(READ_WAIT_S):
                while sequence > self.seat.committed_sequence:
                    seat = self.seat
                    try:
                        await seat.reached(sequence)
                    except Stopped:
                        if self._seat is seat:
                            raise ServiceError(ErrorReason.NOT_READY) from None
        except TimeoutError:
            raise ServiceError(
                ErrorReason.SEQUENCE_NOT_REACHED, metadata={"sequence": self.seat.committed_sequence}
            ) from None

    async def knows_more_now(self, error: ServiceError) -> bool:
        """Whether to look again for what was not found: a follower may not have applied yet what is durable already.
        Raises ServiceError NOT_READY where that cannot be told now.
        """
        if error.reason not in _NOT_FOUND or self.sequencer is not None:
            return False
        if not await self.fresh():
            raise ServiceError(ErrorReason.NOT_READY)
        return True

    async def find(self, look: Callable[[], Found]) -> Found:
        """What `look` finds, now or once this core is as new as the leader's. Raises what it raises."""
        try:
            return look()
        except ServiceError as error:
            if not await self.knows_more_now(error):
                raise
        return look()

    def refusal(self, reason: int, command: Command) -> ServiceError:
        """The error of a refusal of the core, with what a caller can use."""
        metadata: dict[str, object] = {}
        if reason == INSUFFICIENT_FUNDS and command[C_KIND] == PLACE:
            units = self.units(command[P_MARKET])
            metadata["asset"] = units.quote_asset if command[P_SIDE] == BUY else units.base_asset
        elif reason in (ORDER_NOT_FOUND, ORDER_CLOSED) and command[C_KIND] in (CANCEL, REDUCE, REPLACE):
            key = "order_id" if command[X_ORDER_ID] else "client_order_id"
            metadata[key] = command[X_ORDER_ID] or command[X_CLIENT_ORDER_ID]
        elif reason == TOO_MANY_OPEN_ORDERS:
            keyed = command[C_KIND] == PLACE and keys.key_of(command)
            metadata["limit"] = f"open orders of the account{' or of the API key' if keyed else ''}"
        if command[C_REQUEST_ID]:
            metadata["client_order_id" if command[C_KIND] == PLACE else "request_id"] = command[C_REQUEST_ID]
        return ServiceError(reason, metadata=metadata)
