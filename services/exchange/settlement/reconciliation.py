"""Whether engine and ledger agree, for all accounts at one sequence: asked on demand, and all the time."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from exchange.domain.decimals import format_units
from exchange.runtime.audit.contract import AuditEntry
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.settlement import incidents
from exchange.settlement.accounts import settled_sequence
from exchange.settlement.incidents import MAX_BREAKS, Break, Reconciled
from exchange.settlement.ledger import chart
from exchange.settlement.store import SHARD

if TYPE_CHECKING:
    from datetime import datetime

    from exchange.runtime.audit.contract import AuditTrail
    from exchange.runtime.database import Connection, Database
    from exchange.settlement.metrics import SettlementMetrics

# For the ledger to come to the engine's sequence.
WAIT_S: Final = 15.0
# Of one query of a comparison: the first one after a replay from zero counts all trades.
STATEMENT_TIMEOUT_MS: Final = 60_000
# Between two of so many balances others have a turn, such as who asks whether withdrawals may go out.
STRIDE: Final = 5_000
POLL_S: Final = 0.02
# The fills of the orders of so many trades are summed up in each round.
CHECKED_TRADES: Final = 5_000
BREAK_FOUND: Final = "settlement.break-found"

_LATER: Final = """
SELECT a.account, l.asset, l.kind_id, sum(l.amount)::bigint AS amount FROM ledger_lines l
JOIN ledger_accounts a USING (account_id) WHERE l.transaction_id > $1 GROUP BY a.account, l.asset, l.kind_id
"""
_BALANCES: Final = (
    "SELECT a.account, b.asset, b.kind_id, b.amount FROM ledger_balances b JOIN ledger_accounts a USING (account_id)"
)
_ORDERS: Final = """
SELECT id, user_id, symbol, status, filled_quantity, open_quantity FROM orders
WHERE updated_sequence <= $1 AND (status IN ('PENDING', 'PARTIAL') OR id = ANY($2::bigint[]))
"""
_LATER_ORDERS: Final = "SELECT id FROM orders WHERE updated_sequence > $1 AND id = ANY($2::bigint[])"
_UNEQUAL_FILLS: Final = """
WITH recent AS (
    SELECT maker_order_id, taker_order_id FROM trades WHERE sequence > $1 ORDER BY sequence DESC LIMIT $2
), ids AS (SELECT maker_order_id AS id FROM recent UNION SELECT taker_order_id FROM recent)
SELECT ids.id, o.user_id, o.symbol, o.filled_quantity, f.traded FROM ids
LEFT JOIN orders o ON o.id = ids.id
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT sum(quantity) FROM trades WHERE maker_order_id = ids.id), 0)
        + coalesce((SELECT sum(quantity) FROM trades WHERE taker_order_id = ids.id), 0) AS traded
) f
WHERE o.filled_quantity IS DISTINCT FROM f.traded ORDER BY ids.id LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """An open order as the engine has it; quantities as plain decimal text."""

    account: str
    symbol: str
    status: str
    filled: str
    open: str


@dataclass(slots=True)
class EngineBooks:
    """The engine's side at `sequence`: (available, held) in smallest units by (account, asset), open orders by number."""

    sequence: int = 0
    decimals: dict[str, int] = field(default_factory=dict)
    balances: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    orders: dict[int, EngineOrder] = field(default_factory=dict)


class Engine(Protocol):
    """Where the engine's side comes from."""

    async def books(self) -> EngineBooks:
        """At one durable sequence. Raises ServiceError."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison found, `breaks` at most MAX_BREAKS of them."""

    sequence: int
    accounts: int
    balances: int
    breaks: list[Break]
    at: datetime
    seconds: float


class Reconciler:
    """Compares, and puts on record what does not agree."""

    def __init__(self, database: Database, engine: Engine, trail: AuditTrail) -> None:
        self._database = database
        self._engine = engine
        self._trail = trail
        self.metrics: SettlementMetrics | None = None
        self._comparing = asyncio.Lock()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("reconciliation")

    async def reconcile(self) -> Report:
        """Compare now; one comparison at a time.

        Raises ServiceError where the engine's side cannot be had, NOT_READY where the database is away, SEQUENCE_NOT_REACHED
        where the ledger does not come to the engine's sequence in time.
        """
        async with self._comparing:
            started = time.perf_counter()
            async with self._database.connection() as connection:
                at = await connection.fetchval("SELECT clock_timestamp()")
            engine = await self._engine.books()
            await self._reach(engine.sequence)
            async with self._database.reading() as connection:
                await connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
                breaks, accounts, balances = await _compare_balances(connection, engine)
                breaks += await _compare_orders(connection, engine)
                last = await incidents.reconciled(connection)
                trades, trade_breaks = await _compare_trades(connection, last, engine.sequence)
                breaks += trade_breaks
            del breaks[MAX_BREAKS:]
            report = Report(engine.sequence, accounts, balances, breaks, at, time.perf_counter() - started)
            if breaks:
                await self._on_record(report)
            else:
                await incidents.found_whole(self._database, Reconciled(trades.sequence, trades.trade_count, at))
                if self.metrics is not None:
                    self.metrics.reconciled_time.set(at.timestamp())
        await self.count_incidents()
        return report

    async def count_incidents(self) -> int:
        """How many are open; the metric is told, too."""
        async with self._database.connection() as connection:
            count = await incidents.open_count(connection)
        if self.metrics is not None:
            self.metrics.open_incidents.set(count)
        return count

    async def _reach(self, sequence: int) -> None:
        deadline = time.monotonic() + WAIT_S
        async with self._database.connection() as connection:
            while (settled := await settled_sequence(connection)) < sequence:
                if time.monotonic() > deadline:
                    raise ServiceError(ErrorReason.SEQUENCE_NOT_REACHED, metadata={"sequence": settled})
                await asyncio.sleep(POLL_S)

    async def _on_record(self, report: Report) -> None:
        if self.metrics is not None:
            self.metrics.breaks.inc(len(report.breaks))
        first = report.breaks[0]
        self._log.error(
            "engine and ledger do not agree: withdrawals stop",
            sequence=report.sequence,
            breaks=len(report.breaks),
            first=str(first),
        )
        number = await incidents.opened(self._database, report.sequence, report.breaks)
        if number is None:
            return
        details = {"incident": number, "sequence": report.sequence, "breaks": len(report.breaks), "first": str(first)}
        await self._trail.happened(
            AuditEntry(
                action=BREAK_FOUND,
                actor="settlement",
                credential="",
                address="",
                details=json.dumps(details, separators=(",", ":")),
                reason="",
                request_id="",
            )
        )


async def _compare_balances(connection: Connection, engine: EngineBooks) -> tuple[list[Break], int, int]:
    """(breaks, compared accounts, compared balances): each account's, and what is owed against what there is."""
    ledger: dict[tuple[str, str, int], int] = {}
    for number, row in enumerate(await connection.fetch(_BALANCES), 1):
        if number % STRIDE == 0:
            await asyncio.sleep(0)
        ledger[row["account"], row["asset"], row["kind_id"]] = row["amount"]
    for row in await connection.fetch(_LATER, engine.sequence):
        place = (row["account"], row["asset"], row["kind_id"])
        ledger[place] = ledger.get(place, 0) + (row["amount"] if place[2] in chart.DEBIT_KINDS else -row["amount"])
    breaks = []
    owed: dict[tuple[str, str], list[int]] = {}
    assets: dict[str, int] = {}
    for number, ((account, asset, kind), amount) in enumerate(ledger.items(), 1):
        if number % STRIDE == 0:
            await asyncio.sleep(0)
        if kind in chart.DEBIT_KINDS:
            assets[asset] = assets.get(asset, 0) + amount
            if amount < 0:
                # More has left from there than ever came in.
                breaks.append(Break("custody-liabilities", account, asset, "", _text(engine, asset, amount)))
        else:
            pair = owed.setdefault((account, asset), [0, 0])
            pair[kind == chart.HELD] += amount
    liabilities: dict[str, int] = {}
    places = owed.keys() | engine.balances.keys()
    for number, (account, asset) in enumerate(places, 1):
        if number % STRIDE == 0:
            await asyncio.sleep(0)
        theirs, ours = engine.balances.get((account, asset), (0, 0)), tuple(owed.get((account, asset), (0, 0)))
        liabilities[asset] = liabilities.get(asset, 0) + sum(theirs)
        if theirs != ours:
            breaks.append(
                Break("engine-ledger", account, asset, *(_pair(engine, asset, one) for one in (theirs, ours)))
            )
    breaks.sort(key=lambda one: (one.kind, one.account, one.asset))
    for asset in sorted(liabilities.keys() | assets.keys()):
        have, owe = assets.get(asset, 0), liabilities.get(asset, 0)
        if have != owe:
            amounts = (_text(engine, asset, owe), _text(engine, asset, have))
            breaks.append(Break("custody-liabilities", "", asset, *amounts))
    return breaks, len({account for account, _ in places}), len(places)


async def _compare_orders(connection: Connection, engine: EngineBooks) -> list[Break]:
    """Open orders of both, but for those that the ledger has seen change since."""
    ids = list(engine.orders)
    later = {row["id"] for row in await connection.fetch(_LATER_ORDERS, engine.sequence, ids)}
    rows = {row["id"]: row for row in await connection.fetch(_ORDERS, engine.sequence, ids)}
    breaks = []
    for number in sorted((engine.orders.keys() | rows.keys()) - later):
        theirs, row = engine.orders.get(number), rows.get(number)
        ours = None
        if row is not None:
            filled, left = (f"{row[name].normalize():f}" for name in ("filled_quantity", "open_quantity"))
            ours = EngineOrder(row["user_id"], row["symbol"], row["status"], filled, left)
        if theirs != ours:
            breaks.append(_order_break(number, theirs, ours))
    return breaks


def _order_break(number: int, theirs: EngineOrder | None, ours: EngineOrder | None) -> Break:
    one = theirs or ours
    assert one is not None, "one side knows it"
    said = ("" if order is None else f"{order.status} {order.filled} + {order.open}" for order in (theirs, ours))
    return Break("orders", one.account, f"{one.symbol} {number}", *said)


async def _compare_trades(connection: Connection, last: Reconciled | None, sequence: int) -> tuple[Any, list[Break]]:
    """(the offset, breaks): each trade is there, and the fills of orders are what their trades say."""
    offset = await connection.fetchrow("SELECT sequence, trade_count FROM settlement_offset WHERE shard = $1", SHARD)
    assert offset is not None, f"it is at {sequence}"
    from_sequence, before = (last.sequence, last.trade_count) if last is not None else (0, 0)
    there = await connection.fetchval("SELECT count(*) FROM trades WHERE sequence > $1", from_sequence)
    counted = _Count(offset["sequence"], offset["trade_count"])
    breaks = []
    if there != counted.trade_count - before:
        breaks.append(
            Break("trades", "", f"after sequence {from_sequence}", str(counted.trade_count - before), str(there))
        )
    for row in await connection.fetch(_UNEQUAL_FILLS, from_sequence, CHECKED_TRADES, MAX_BREAKS):
        filled = "" if row["filled_quantity"] is None else str(row["filled_quantity"])
        breaks.append(
            Break(
                "trades", row["user_id"] or "", f"{row['symbol'] or ''} {row['id']}".strip(), str(row["traded"]), filled
            )
        )
    return counted, breaks


@dataclass(frozen=True, slots=True)
class _Count:
    sequence: int
    trade_count: int


def _pair(engine: EngineBooks, asset: str, amounts: tuple[int, ...]) -> str:
    return " + ".join(_text(engine, asset, amount) for amount in amounts)


def _text(engine: EngineBooks, asset: str, amount: int) -> str:
    return format_units(amount, engine.decimals.get(asset, 0))
