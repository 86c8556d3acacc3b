"""Candles anew from the trades: market data's function `candles_rebuild`, called as the tables' owner."""

from __future__ import annotations

from exchange.stack.postgresql.backup import connected


def rebuild(url: str) -> tuple[int, int]:
    """How many candles there are now, and to which sequence they go. Raises StackError, and has changed nothing then."""
    with connected(url) as connection:
        row = connection.execute("SELECT candle_count, sequence FROM candles_rebuild()").fetchone()
    assert row is not None, "it returns one row"
    return int(row[0]), int(row[1])
