"""Pages of the latest trades neither repeat nor leave out one, also where a command made several."""

from __future__ import annotations

from exchange.market_data.events import TradeExecuted
from exchange.market_data.tape import Tape

IDS = ["7-1", "7-2", "7-10", "8-1", "12-1", "12-3"]


def trade(trade_id: str) -> TradeExecuted:
    sequence = int(trade_id.partition("-")[0])
    return TradeExecuted(sequence, 0, "BTCUSD", trade_id, "1", "1", "1", 1, 1, "0")


def test_pages_of_any_size_hold_all_trades_once() -> None:
    tape = Tape(trade(each) for each in IDS)
    for size in range(1, len(IDS) + 2):
        found: list[str] = []
        before = 0
        while True:
            page, before = tape.before(before, size)
            found += [each.trade_id for each in page]
            tape.add(trade(f"{100 + len(found)}-1"))
            if not before:
                break
        assert [each for each in found if each in IDS] == IDS[::-1]
