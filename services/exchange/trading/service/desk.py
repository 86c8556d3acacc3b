"""What all services of one engine instance share: the core that leads now, the way into it, and the scales."""

from __future__ import annotations

import asyncio
from typing import Final

from exchange.domain.symbols import canonical_symbol
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
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
from exchange.trading.sequencer import Overloaded, Sequencer, Stalled, Stopped
from exchange.trading.service.units import MarketUnits

READ_WAIT_S: Final = 2.0
"""How long a read waits for its `min_sequence`."""


class Desk:
    """The instance's way to its core. `sequencer` is set while it leads."""

    def __init__(self, *, instance: str, journal: Journal, clock: Clock) -> None:
        self.instance = instance
        self.journal = journal
        self.clock = clock
        self.sequencer: Sequencer | None = None
        self.snapshot_sequence = 0
        self._units: list[MarketUnits] = []

    def lead(self, sequencer: Sequencer, snapshot_sequence: int) -> None:
        """Serve from this sequencer's core."""
        self._units = []
        self.snapshot_sequence = snapshot_sequence
        self.sequencer = sequencer

    def step_down(self) -> None:
        """Serve no more until the next `lead`."""
        self.sequencer = None

    @property
    def leader(self) -> Sequencer:
        """The sequencer. Raises ServiceError NOT_READY while this instance does not lead."""
        if self.sequencer is None:
            raise ServiceError(ErrorReason.NOT_READY)
        return self.sequencer

    @property
    def engine(self) -> Engine:
        """The core. Raises ServiceError NOT_READY."""
        return self.leader.engine

    @property
    def state(self) -> State:
        """The core's state, which may be ahead of the journal: call `settle` before an answer leaves."""
        return self.leader.engine.state

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
        sequencer = self.leader
        try:
            return sequencer.submit(commands)
        except Overloaded:
            raise ServiceError(
                ErrorReason.OVERLOADED, metadata={"limit": f"{sequencer.limits.max_queued_commands} queued commands"}
            ) from None
        except Stalled:
            raise ServiceError(
                ErrorReason.JOURNAL_UNAVAILABLE, "the journal does not answer: nothing was done"
            ) from None
        except Stopped:
            raise ServiceError(ErrorReason.NOT_READY) from None

    async def settled(self, future: asyncio.Future[list[Result]]) -> list[Result]:
        """The results of a submission. Raises ServiceError JOURNAL_UNAVAILABLE when its outcome is unknown."""
        try:
            return await future
        except (Stalled, Stopped):
            raise ServiceError(
                ErrorReason.JOURNAL_UNAVAILABLE, "the outcome is unknown: ask again with the same id"
            ) from None

    async def settle(self) -> None:
        """Wait until all that the core has applied is durable; an answer made before may leave then."""
        barrier = self.leader.barrier()
        if barrier is not None:
            await self.settled(barrier)

    async def reach(self, sequence: int) -> None:
        """Wait for a read's `min_sequence`. Raises ServiceError SEQUENCE_NOT_REACHED after READ_WAIT_S."""
        sequencer = self.leader
        if sequence <= sequencer.committed_sequence:
            return
        try:
            await asyncio.wait_for(sequencer.reached(sequence), READ_WAIT_S)
        except TimeoutError:
            raise ServiceError(
                ErrorReason.SEQUENCE_NOT_REACHED, metadata={"sequence": sequencer.committed_sequence}
            ) from None
        except Stopped:
            raise ServiceError(ErrorReason.NOT_READY) from None

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
            metadata["limit"] = "open orders of the account"
        if command[C_REQUEST_ID]:
            metadata["client_order_id" if command[C_KIND] == PLACE else "request_id"] = command[C_REQUEST_ID]
        return ServiceError(reason, metadata=metadata)
