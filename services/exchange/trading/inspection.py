"""Looking at the core beside the journal: rebuilding a book, storing snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.trading import core_loader, recovery
from exchange.trading.core import book
from exchange.trading.core.engine import Engine
from exchange.trading.core.model import Market
from exchange.trading.journal.contract import Journal

MAX_DIFFERENCES: Final = 100

Row = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild found."""

    sequence: int
    hash_before: str
    hash_rebuilt: str
    differences: list[str]
    replayed_commands: int
    from_sequence: int
    order_count: int

    @property
    def identical(self) -> bool:
        """Whether the book in use is what the journal says."""
        return self.hash_before == self.hash_rebuilt


class Inspector:
    """Compares the core that leads with what the journal says. `lead` names the present one."""

    def __init__(self, journal: Journal, shard: int) -> None:
        self._journal = journal
        self._shard = shard
        self._engine: Engine | None = None

    @property
    def core_mode(self) -> str:
        """Either "compiled" or "pure"."""
        return core_loader.mode()

    def lead(self, engine: Engine) -> None:
        """The core in use from now on."""
        self._engine = engine

    async def rebuild(self, symbol: str) -> RebuildReport:
        """Build a market's book from the journal and compare it with the one in use, at the same sequence.

        The core in use goes on meanwhile: the rebuilt one is brought up to it, frame by frame, until both stand at one
        sequence at one moment. Where they differ the report says how; a core that differs from its journal must not
        serve, and the caller decides (a restart rebuilds everything).
        """
        engine = self._engine
        assert engine is not None
        recovered = await recovery.recover(self._journal, from_genesis=True)
        start = 1
        while recovered.engine.state.sequence != engine.state.sequence:
            before = recovered.engine.state.sequence
            async for frame in self._journal.read(before + 1):
                recovered.digest = recovery.replay_frame(recovered.engine, frame, recovered.digest)
                recovered.replayed_commands += frame.last_sequence - frame.first_sequence + 1
        ours, theirs = rows_of(engine, symbol), rows_of(recovered.engine, symbol)
        return RebuildReport(
            sequence=engine.state.sequence,
            hash_before=book.hash_orders(ours),
            hash_rebuilt=book.hash_orders(theirs),
            differences=differences(ours, theirs),
            replayed_commands=recovered.replayed_commands,
            from_sequence=start,
            order_count=len(ours),
        )

    async def snapshot(self) -> int:
        """Store a snapshot of the journal's head, made from the journal itself; answers its sequence.

        Made from the newest snapshot and the tail rather than from the core in use: so what leads is not held up for
        longer than the replay of a frame, and the record is proved once more.
        """
        recovered = await recovery.recover(self._journal)
        if recovered.engine.state.sequence == 0:
            return 0
        await self._journal.save_snapshot(recovery.take_snapshot(recovered, self._shard))
        return recovered.engine.state.sequence


def rows_of(engine: Engine, symbol: str) -> list[Row]:
    """(side, price, order id, open lots) of a market's resting orders, bids then asks, in priority order."""
    index = engine.state.market_index.get(symbol)
    if index is None:
        return []
    market: Market = engine.state.markets[index]
    return [
        (side.side, order.price, order.order_id, order.lots_open)
        for side in (market.bids, market.asks)
        for order in book.orders_in_priority(side)
    ]


def differences(ours: list[Row], theirs: list[Row]) -> list[str]:
    """One line for each order that is missing, too much, changed or out of its place, at most MAX_DIFFERENCES."""
    places = {row[2]: (place, row) for place, row in enumerate(ours)}
    lines: list[str] = []
    for place, row in enumerate(theirs):
        found = places.pop(row[2], None)
        if found is None:
            lines.append(f"order {row[2]}: missing in the book in use")
        elif found[1] != row:
            lines.append(
                f"order {row[2]}: in use (price {found[1][1]}, open {found[1][3]}), journal ({row[1]}, {row[3]})"
            )
        elif found[0] != place and len(ours) == len(theirs):
            lines.append(f"order {row[2]}: place {found[0]} in use, {place} by the journal")
    lines.extend(f"order {order_id}: not in the journal's book" for order_id in places)
    return lines[:MAX_DIFFERENCES]
