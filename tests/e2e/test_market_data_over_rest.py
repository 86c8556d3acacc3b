"""The history of markets through Envoy, over REST and by the SDK's command line: what may be kept, and that refusals may not."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from pincex_client import ExchangeClient
from tests.edge_http import Answer, call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

NOW = "public, max-age=1"
PAST = "public, max-age=3600, immutable"


def get(stack: ExchangeStack, path: str) -> Answer:
    return call(f"{stack.edge_url}/api/v1/{path}")


def trade_once(stack: ExchangeStack) -> None:
    for account, side in (("maker", "SELL"), ("demo", "BUY")):
        body = {"symbol": "BTCUSD", "side": side, "order_type": "LIMIT", "quantity": "0.001", "price": "50000.00"}
        headers = {"content-type": "application/json", "x-pincex-account": account}
        answer = call(f"{stack.edge_url}/api/v1/orders", "POST", json.dumps(body), headers)
        assert answer.status == 200, answer.text


def test_candles_tickers_trades_and_the_book_say_how_long_they_may_be_kept(exchange_stack: ExchangeStack) -> None:
    trade_once(exchange_stack)
    eventually(
        lambda: (
            (found := get(exchange_stack, "candles/BTC/USD?interval=1d")).status == 200
            and bool(found.json()["candles"])
        ),
        "the trade is in a candle",
    )
    eventually(
        lambda: bool(get(exchange_stack, "trade-history/BTCUSD").json()["trades"]), "the trade is in the history"
    )
    now = int(time.time())
    sequence = get(exchange_stack, "orderbook/BTCUSD").json()["sequence"]
    closed = f"end_time={time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now - 86_400))}"
    expected = {
        "candles/BTCUSD?interval=1d": NOW,
        "candles/BTCUSD?interval=1m&page_size=1": NOW,
        "trade-history/BTCUSD": NOW,
        "tickers": NOW,
        "tickers/BTC/USD": NOW,
        "orderbook/BTCUSD": NOW,
        "market-trades/BTCUSD": NOW,
        "orderbook/BTCUSD?min_sequence=1": "no-store",
        f"orderbook/BTCUSD?as_of_sequence={sequence}": PAST,
        "orderbook/BTCUSD?as_of_sequence=1000000000": None,
        "candles/BTCUSD?interval=2m": None,
        "candles/NOPE": None,
        "tickers/NOPE": None,
        "trade-history/BTCUSD?page_size=1001": None,
    }
    found = {path: get(exchange_stack, path) for path in expected}
    assert {path: answer.headers.get("cache-control") for path, answer in found.items()} == expected
    assert all((answer.status == 200) == (expected[path] is not None) for path, answer in found.items())
    assert found["candles/BTCUSD?interval=2m"].reason() == "INVALID_FIELD"
    assert get(exchange_stack, f"candles/BTCUSD?interval=1m&{closed}").headers["cache-control"] == PAST
    (candle,) = found["candles/BTCUSD?interval=1d"].json()["candles"]
    ticker = found["tickers/BTC/USD"].json()
    assert candle["close"] == ticker["last_price"] == found["market-trades/BTCUSD"].json()["trades"][0]["price"]


def test_the_command_line_shows_candles_tickers_and_a_frame_to_watch(exchange_stack: ExchangeStack) -> None:
    trade_once(exchange_stack)
    command = exchange_stack.folder.command
    eventually(
        lambda: bool(get(exchange_stack, "candles/BTCUSD?interval=1d").json()["candles"]), "the trade is in a candle"
    )
    as_csv = command("candles", "btc/usd", "--interval", "1d", "--csv").stdout.splitlines()
    assert as_csv[0] == "symbol,interval,open_time,open,high,low,close,volume,quote_volume,trade_count,closed,sequence"
    found = json.loads(command("candles", "BTCUSD", "--interval", "1d", "--json").stdout)["candles"]
    assert [row.split(",")[2] for row in as_csv[1:]] == [one["open_time"] for one in found]
    assert found[-1]["close"] == get(exchange_stack, "tickers/BTCUSD").json()["last_price"]
    assert "BTCUSD" in command("ticker").stdout
    # No terminal: one frame.
    frame = command("watch", "BTCUSD")
    assert frame.returncode == 0, frame.stderr
    assert "BTCUSD" in frame.stdout
    assert "trades" in frame.stdout
    assert "volume" in frame.stdout
    wrong = command("candles", "BTCUSD", "--from", "yesterday")
    assert (wrong.returncode, "is no time" in wrong.stderr) == (2, True)


async def test_streams_of_the_sdk_ride_through_the_death_of_market_data(exchange_stack: ExchangeStack) -> None:
    """The last candle of the day and the book are right again by themselves, and nothing was shown as new meanwhile."""
    trade_once(exchange_stack)
    async with ExchangeClient(exchange_stack.edge_address, account="demo") as client:
        candles = client.market_data.candle_stream("BTCUSD", "1d")
        book = client.book_stream("BTCUSD", interval_ms=100, tell_stale=True)
        async with candles, book, asyncio.timeout(60):
            before = (await anext(candles)).trade_count
            assert not (await anext(book)).stale
            await asyncio.to_thread(exchange_stack.kill, "market-data-1")
            while not (await anext(book)).stale:
                pass
            await asyncio.to_thread(trade_once, exchange_stack)
            while (await anext(candles)).trade_count <= before:
                pass
            while (await anext(book)).stale:
                pass
            assert (candles.gaps, candles.missed, book.gaps, book.mismatches) == (0, 0, 0, 0)
            assert candles.newest is not None
            ticker = await client.market_data.get_ticker("BTCUSD")
            assert ticker.last_price == candles.newest.close
    eventually(lambda: exchange_stack.instance("market-data-1")["state"] == "ready", "market data runs again")
