"""What `pincex watch`, `candles` and `ticker` draw."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Console, RenderableType

from pincex_client import Candle, Level, Ticker, Trade
from pincex_client.cli import render
from pincex_client.cli.market_data import candles_table, screen, tickers_table

MOMENT = datetime(2026, 11, 28, 12, 0, 1, 234_000, tzinfo=UTC)


def drawn(shown: RenderableType) -> str:
    console = Console(width=120, file=None, record=True)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def ticker(**fields: object) -> Ticker:
    plain = dict.fromkeys(Ticker.__dataclass_fields__)
    zero = Decimal(0)
    return Ticker(**{**plain, "symbol": "BTCUSD", "volume": zero, "quote_volume": zero, "trade_count": 0, **fields})  # type: ignore[arg-type]


FALLING = ticker(
    last_price=Decimal("49000.00"),
    open_price=Decimal("50000.00"),
    high_price=Decimal("50100.00"),
    low_price=Decimal("48900.00"),
    volume=Decimal("1.50000"),
    price_change=Decimal("-1000.00"),
    trade_count=7,
)


def test_a_screen_has_the_day_above_and_the_tape_beside_the_ladder() -> None:
    ladder = render.ladder(
        "BTCUSD", [Level(Decimal("48999.00"), Decimal("1.5"), 2)], [Level(Decimal("49001.00"), Decimal("0.5"), 1)]
    )
    trade = Trade("7-1", "BTCUSD", Decimal("49000.00"), Decimal("0.25"), "SELL", MOMENT, 7)
    text = drawn(screen(FALLING, ladder, [trade]))
    assert text.splitlines()[0].rstrip() == (
        "last 49,000.00  24 h -1,000.00 (-2.00%)  high 50,100.00  low 48,900.00  volume 1.50000"
    )
    for piece in ("49,001.00", "48,999.00", "spread 2.00", "12:00:01.234", "0.25"):
        assert piece in text


def test_a_market_without_trades_says_so() -> None:
    assert "no trades yet" in drawn(screen(ticker(), render.ladder("BTCUSD", [], []), []))
    assert "BTCUSD" in drawn(tickers_table([ticker()]))


def test_tickers_show_the_change_with_its_sign() -> None:
    assert "-1,000.00" in (text := drawn(tickers_table([FALLING])))
    assert "-2.00%" in text


def test_a_candle_that_may_still_change_is_marked() -> None:
    one = Decimal("1.00")
    closed = Candle("BTCUSD", "1m", MOMENT, one, one, one, one, one, one, 1, closed=True, sequence=5)
    still_open = Candle("BTCUSD", "1m", MOMENT, one, one, one, one, one, one, 1, closed=False, sequence=6)
    lines = drawn(candles_table([closed, still_open])).splitlines()
    assert [line.rstrip().endswith("open") for line in lines[1:]] == [False, True]
