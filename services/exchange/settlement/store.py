"""The books in PostgreSQL: read once at the start, then written batch by batch, offset and rows in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.domain.decimals import parse_units
from exchange.settlement.ledger.books import Books, MarketScale, copied
from exchange.settlement.ledger.orders import OrderRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import asyncpg

    from exchange.settlement.ledger.books import Batch

    Connection = asyncpg.Connection[asyncpg.Record]

SHARD: Final = 0
# Any constant does, as long as all instances use the same: who holds it writes.
WRITER_LOCK: Final = 0x50_49_4E_53_45_54
# About 100 KB of a COPY.
BLOCK_ROWS: Final = 1_000

_LINE_COLUMNS: Final = (
    "posting_id",
    "transaction_id",
    "account_id",
    "asset",
    "kind_id",
    "cause_id",
    "amount",
    "balance_after",
    "reference",
    "event_time_ns",
)
_TRADE_COLUMNS: Final = (
    "id",
    "sequence",
    "symbol",
    "price",
    "quantity",
    "notional",
    "taker_side",
    "maker_order_id",
    "taker_order_id",
    "maker_user_id",
    "taker_user_id",
    "maker_fee",
    "taker_fee",
    "created_at",
)
_ORDER_COLUMNS: Final = (
    "id",
    "user_id",
    "client_order_id",
    "symbol",
    "side",
    "order_type",
    "time_in_force",
    "quantity",
    "price",
    "stop_price",
    "filled_quantity",
    "open_quantity",
    "status",
    "cancel_reason",
    "created_at",
    "updated_at",
    "updated_sequence",
)
_UPDATE_ORDERS: Final = """
UPDATE orders SET quantity = new.quantity::numeric, price = nullif(new.price, '')::numeric,
    filled_quantity = new.filled::numeric, open_quantity = new.open::numeric, status = new.status,
    cancel_reason = nullif(new.reason, ''), updated_at = new.updated::timestamptz, updated_sequence = new.sequence
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[])
    AS new(id, quantity, price, filled, open, status, reason, updated, sequence)
WHERE orders.id = new.id
"""
_SET_BALANCES: Final = """
INSERT INTO ledger_balances (account_id, asset, kind_id, amount)
SELECT * FROM unnest($1::int[], $2::text[], $3::smallint[], $4::bigint[])
ON CONFLICT (account_id, asset, kind_id) DO UPDATE SET amount = excluded.amount
"""
_SET_MARKETS: Final = """
INSERT INTO markets (symbol, base_asset, quote_asset, mode, sequence)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
ON CONFLICT (symbol) DO UPDATE SET mode = excluded.mode, sequence = excluded.sequence
"""
_BEGIN_OFFSET: Final = """
INSERT INTO settlement_offset (shard, sequence, resume_token, posting_id, trade_count, event_time_ns)
VALUES ($1, 0, '', 0, 0, 0) ON CONFLICT (shard) DO NOTHING
"""
# Only from where this writer believes to be: one that was overtaken writes nothing.
_MOVE_OFFSET: Final = """
UPDATE settlement_offset SET sequence = $3, resume_token = $4, posting_id = $5, trade_count = $6, event_time_ns = $7,
    settled_at = clock_timestamp()
WHERE shard = $1 AND sequence = $2 AND posting_id = $8
"""


class Overtaken(Exception):
    """Another instance has written meanwhile: what is in memory here is worth nothing."""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far the tables are; `sequence` 0 means nothing was settled yet."""

    sequence: int
    resume_token: str
    posting_id: int
    trade_count: int
    event_time_ns: int


async def become_writer(connection: Connection) -> bool:
    """Whether this session is the one that writes now; it is until it ends."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", WRITER_LOCK))


async def load(connection: Connection) -> tuple[Books, Offset]:
    """The books as they stand in the tables, and how far they are."""
    await connection.execute(_BEGIN_OFFSET, SHARD)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        offset = await connection.fetchrow(
            "SELECT sequence, resume_token, posting_id, trade_count, event_time_ns FROM settlement_offset WHERE shard = $1",
            SHARD,
        )
        assert offset is not None, "made above, and never removed"
        books = Books()
        books.posting_id, books.trade_count = offset["posting_id"], offset["trade_count"]
        books.assets = {
            row["code"]: row["decimals"] for row in await connection.fetch("SELECT code, decimals FROM assets")
        }
        books.accounts = {
            row["account"]: row["account_id"]
            for row in await connection.fetch("SELECT account, account_id FROM ledger_accounts")
        }
        books.balances = {
            (account, asset, kind): amount
            for account, asset, kind, amount in await connection.fetch(
                "SELECT account_id, asset, kind_id, amount FROM ledger_balances"
            )
        }
        for symbol, base, quote in await connection.fetch("SELECT symbol, base_asset, quote_asset FROM markets"):
            books.markets[symbol] = MarketScale(symbol, base, quote, books.assets[base], books.assets[quote])
        open_orders = await connection.fetch("SELECT * FROM orders WHERE status IN ('PENDING', 'PARTIAL')")
    for order in open_orders:
        books.orders.open[order["id"]] = _order(order, books.market(order["symbol"]).base_decimals)
    return books, Offset(**dict(offset))


class Rows:
    """What the books gathered, as it stood when it was taken: rows of COPY and arrays of SQL. The books may go on."""

    def __init__(self, books: Books) -> None:
        self.posting_id, self.trade_count = books.posting_id, books.trade_count
        batch = books.take_batch()
        touched, books.orders.touched = books.orders.touched, {}
        self.batch = batch
        self.balances = [(*place, books.balances[place]) for place in batch.balances]
        self.new_orders = [_order_text(order) for order in touched.values() if order.is_new]
        self.changed_orders = [_order_change(order) for order in touched.values() if not order.is_new]
        for order in touched.values():
            order.is_new = False


async def write(connection: Connection, rows: Rows, old: Offset, new: Offset) -> None:
    """Write the rows, and the offset with them. Raises Overtaken, and whatever the database says."""
    batch = rows.batch
    async with connection.transaction():
        moved = await connection.execute(
            _MOVE_OFFSET,
            SHARD,
            old.sequence,
            new.sequence,
            new.resume_token,
            new.posting_id,
            new.trade_count,
            new.event_time_ns,
            old.posting_id,
        )
        if moved != "UPDATE 1":
            raise Overtaken(f"the offset is not at sequence {old.sequence} any more")
        await _write_definitions(connection, batch)
        await _copy(connection, "ledger_lines", _LINE_COLUMNS, batch.lines)
        await _copy(connection, "trades", _TRADE_COLUMNS, batch.trades)
        await _copy(connection, "orders", _ORDER_COLUMNS, rows.new_orders)
        for statement, arrays in ((_SET_BALANCES, rows.balances), (_UPDATE_ORDERS, rows.changed_orders)):
            if arrays:
                await connection.execute(statement, *zip(*arrays, strict=True))


async def _write_definitions(connection: Connection, batch: Batch) -> None:
    if batch.assets:
        await connection.executemany("INSERT INTO assets (code, decimals) VALUES ($1, $2)", batch.assets.items())
    if batch.markets:
        rows = [(symbol, *definition) for symbol, definition in batch.markets.items()]
        await connection.execute(_SET_MARKETS, *zip(*rows, strict=True))
    if batch.accounts:
        rows_of_text = [f"{number}\t{copied(account)}\n" for account, number in batch.accounts.items()]
        await _copy(connection, "ledger_accounts", ("account_id", "account"), rows_of_text)


async def _copy(connection: Connection, table: str, columns: tuple[str, ...], rows: list[str]) -> None:
    if rows:
        await connection.copy_to_table(table, source=_blocks(rows), columns=columns)


async def _blocks(rows: list[str]) -> AsyncGenerator[bytes, None]:
    """Bytes of some rows at a time: the loop has other work meanwhile."""
    for first in range(0, len(rows), BLOCK_ROWS):
        yield "".join(rows[first : first + BLOCK_ROWS]).encode()


def _order_change(order: OrderRow) -> tuple[Any, ...]:
    return (
        order.order_id,
        order.text(order.quantity),
        order.price,
        order.text(order.filled),
        order.text(order.open),
        order.status,
        order.cancel_reason,
        order.updated,
        order.sequence,
    )


def _order_text(order: OrderRow) -> str:
    values = (
        str(order.order_id),
        order.user_id,
        copied(order.client_order_id),
        order.symbol,
        order.side,
        order.order_type,
        order.time_in_force,
        order.text(order.quantity),
        order.price or "\\N",
        order.stop_price or "\\N",
        order.text(order.filled),
        order.text(order.open),
        order.status,
        order.cancel_reason or "\\N",
        order.created,
        order.updated,
        str(order.sequence),
    )
    return "\t".join(values) + "\n"


def _order(row: Any, decimals: int) -> OrderRow:
    """An open order as the tables have it."""
    order = OrderRow(
        order_id=row["id"],
        user_id=row["user_id"],
        client_order_id=row["client_order_id"],
        symbol=row["symbol"],
        side=row["side"],
        order_type=row["order_type"],
        time_in_force=row["time_in_force"],
        quantity=parse_units(format(row["quantity"], "f"), decimals),
        price=_text(row["price"]),
        stop_price=_text(row["stop_price"]),
        decimals=decimals,
        created=row["created_at"].isoformat(),
        sequence=row["updated_sequence"],
    )
    order.filled = parse_units(format(row["filled_quantity"], "f"), decimals)
    order.open = parse_units(format(row["open_quantity"], "f"), decimals)
    order.status = row["status"]
    order.updated = row["updated_at"].isoformat()
    order.is_new = False
    return order


def _text(price: Any) -> str:
    return "" if price is None else format(price, "f")
