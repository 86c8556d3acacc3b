"""Looking at the core beside the journal: rebuilding a book, storing snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.trading import core_loader, recovery
from exchange.trading.core import book
from exchange.trading.core.engine import Engine
from exchange.trading.core.model import Market
from exchange.trading.journal.contract import Diverged, Journal
from exchange.trading.seat import Seat

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
    """Compares a core in use with what the journal says."""

    def __init__(self, journal: Journal, shard: int) -> None:
        self._journal = journal
        self._shard = shard

    @property
    def core_mode(self) -> str:
        """Either "compiled" or "pure"."""
        return core_loader.mode()

    async def rebuild(self, seat: Seat, symbol: str) -> RebuildReport:
        """Build a market's book from the journal and compare it with the one in use, order by order.

        The book in use is noted at one moment and one sequence; the journal is then replayed to exactly there, while
        the core goes on. Where they differ the core is given up: the instance recovers from the journal.
        """
        engine = seat.engine
        sequence = engine.state.sequence
        ours = rows_of(engine, symbol)
        await seat.reached(sequence)
        recovered = await recovery.recover(self._journal, to_sequence=sequence, exactly=True, from_genesis=True)
        theirs = rows_of(recovered.engine, symbol)
        report = RebuildReport(
            sequence=sequence,
            hash_before=book.hash_orders(ours),
            hash_rebuilt=book.hash_orders(theirs),
            differences=differences(ours, theirs),
            replayed_commands=recovered.replayed_commands,
            from_sequence=recovered.snapshot_sequence + 1,
            order_count=len(theirs),
        )
        if not report.identical:
            seat.give_up(Diverged(f"the book of {symbol} differs from the journal at sequence {sequence}"))
        return report

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
