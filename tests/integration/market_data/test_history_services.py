"""What clients get of the past: equal to what SQL says of the trades, page by page, and as streams without a gap."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.market_data.candles import INTERVALS
from exchange.market_data.history import State
from exchange.market_data.service.caching import NOW, PAST
from exchange.runtime.feeds.tokens import Position
from exchange.stack.postgresql.candles import rebuild
from pincex.marketdata.v1 import market_data_service_pb2 as pb
from tests.integration.market_data.history_rig import (
    CANDLES_BY_SQL,
    TICKER_BY_SQL,
    candle_rows,
    market_data_url,
    rows,
)
from tests.integration.settlement.settlement_app import as_superuser
from tests.integration.trading.engine_app import eventually, refused

if TYPE_CHECKING:
    from tests.integration.market_data.history_app import MarketHistory
    from tests.integration.settlement.settlement_app import Settlement
    from tests.integration.trading.engine_app import Exchange
    from tests.postgres_fixture import Database


async def trade_some(exchange: Exchange, count: int = 12) -> None:
    """Trades of several makers by one taker, and alone."""
    for number in range(count):
        for step in range(number % 3 + 1):
            await exchange.maker.sell("0.01", str(50_000 + (number * 7) % 5 + step))
        await exchange.demo.buy(f"0.0{number % 3 + 1}", "50010")


async def settled(exchange: Exchange, settlement: Settlement, market_history: MarketHistory) -> None:
    await settlement.settled(exchange)
    await market_history.caught_up(exchange)


async def test_candles_and_tickers_are_what_sql_says_of_the_trades(
    exchange: Exchange, settlement: Settlement, market_history: MarketHistory, database: Database
) -> None:
    await trade_some(exchange)
    await settled(exchange, settlement, market_history)
    for interval, length_s in INTERVALS.items():
        answer = await market_history.ask("ListCandles", pb.ListCandlesRequest(symbol="btc-usd", interval=interval))
        found = [
            (
                one.open_time.seconds,
                one.open,
                one.high,
                one.low,
                one.close,
                one.volume,
                one.quote_volume,
                one.trade_count,
                one.sequence,
            )
            for one in answer.candles
        ]
        by_sql = by_name(database, CANDLES_BY_SQL, symbol="BTCUSD", length=length_s)
        assert found == by_sql, interval
        assert {one.interval for one in answer.candles} == {interval}
    ticker = await market_history.ask("GetTicker", pb.GetTickerRequest(symbol="BTCUSD"))
    (expected,) = by_name(database, TICKER_BY_SQL, symbol="BTCUSD", second=ticker.ticker_time.seconds)
    assert expected == (
        ticker.last_price,
        ticker.last_quantity,
        ticker.open_price,
        ticker.high_price,
        ticker.low_price,
        ticker.volume,
        ticker.quote_volume,
        ticker.trade_count,
    )
    assert Decimal(ticker.price_change) == Decimal(ticker.last_price) - Decimal(ticker.open_price)
    book = market_history.books.market("BTCUSD").book
    asks = [(book.prices.text(price), book.quantities.text(book.asks.levels[price][0])) for price in book.asks.best(1)]
    assert (ticker.best_ask, ticker.best_ask_quantity) == (asks[0] if asks else ("", ""))
    assert ticker.sequence == exchange.engine.state.sequence


async def test_candles_that_cannot_be_followed_on_are_built_anew_from_the_trades_by_one_command(
    monkeypatch: pytest.MonkeyPatch,
    exchange: Exchange,
    settlement: Settlement,
    market_history: MarketHistory,
    database: Database,
) -> None:
    monkeypatch.setattr("exchange.market_data.history.STOPPED_LOOK_S", 0.05)
    history = market_history.history
    await trade_some(exchange)
    await settled(exchange, settlement, market_history)
    stream = market_history.stream("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD"))
    assert (await stream.next()).snapshot
    before = candle_rows(database)
    # As if another history had been written here: its last frame is not the engine's, and a candle is wrong.
    elsewhere = Position("another", 0, history.sequence, -1, "00" * 8).token()
    rows(database, "UPDATE market_data_offset SET resume_token = %s, sequence = sequence - 1", elsewhere)
    rows(database, "ALTER TABLE candles DISABLE TRIGGER USER")
    rows(database, "UPDATE candles SET volume = 7 WHERE interval_s = 60")
    rows(database, "ALTER TABLE candles ENABLE TRIGGER USER")
    await exchange.maker.sell("0.01", "70000")
    await eventually(lambda: history.state is State.STOPPED, "it stops")
    assert "HISTORY_CHANGED" in history.problem
    *_, last = await stream.until(lambda update: update.HasField("end"))
    assert last.end.reason == "NOT_READY"
    refusal = await refused(market_history.ask("GetTicker", pb.GetTickerRequest(symbol="BTCUSD")))
    assert refusal.reason == "NOT_READY"

    assert rebuild(database.admin_url) == (len(before), settlement.app.settler.offset.sequence)
    assert [[str(cell) for cell in row] for row in candle_rows(database)] == [
        [str(cell) for cell in row] for row in before
    ]
    await trade_some(exchange, 3)
    await settled(exchange, settlement, market_history)
    assert (history.state, history.problem) == (State.RUNNING, "")
    grown = candle_rows(database)
    assert rebuild(database.admin_url) == (len(grown), settlement.app.settler.offset.sequence), "also while one writes"
    assert candle_rows(database) == grown
    with psycopg.connect(market_data_url(database)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT candles_rebuild()")


def by_name(database: Database, query: str, **values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        return connection.execute(query, values).fetchall()


async def test_pages_of_trades_do_not_shift_while_new_ones_come(
    exchange: Exchange, settlement: Settlement, market_history: MarketHistory, database: Database
) -> None:
    await trade_some(exchange)
    await settled(exchange, settlement, market_history)
    expected = [
        row[0]
        for row in rows(database, "SELECT id FROM trades ORDER BY sequence DESC, split_part(id, '-', 2)::int DESC")
    ]
    request = pb.ListTradeHistoryRequest(symbol="BTC/USD", page_size=4)
    found: list[str] = []
    kept: list[str] = []
    while True:
        answer, how_long = await market_history.ask_with_headers("ListTradeHistory", request)
        found += [one.trade_id for one in answer.trades]
        kept.append(how_long)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        await trade_some(exchange, 1)
        await settled(exchange, settlement, market_history)
    assert found == expected
    assert kept == [NOW, *[PAST] * (len(kept) - 1)]


async def test_trades_are_found_by_their_times(
    exchange: Exchange, settlement: Settlement, market_history: MarketHistory, database: Database
) -> None:
    await trade_some(exchange, 2)
    await settled(exchange, settlement, market_history)
    (moment,) = rows(database, "SELECT created_at FROM trades ORDER BY created_at LIMIT 1")[0]
    first = Timestamp()
    first.FromDatetime(moment)
    request = pb.ListTradeHistoryRequest(symbol="BTCUSD", end_time=first)
    assert not (await market_history.ask("ListTradeHistory", request)).trades, "the end is not included"
    request.end_time.nanos += 1
    (answer,) = (await market_history.ask("ListTradeHistory", request)).trades
    assert answer.trade_time == first, "the start is; what is a nanosecond later is not asked for"
    request = pb.ListTradeHistoryRequest(symbol="BTCUSD", start_time=first)
    everything = (await market_history.ask("ListTradeHistory", request)).trades
    assert len(everything) == rows(database, "SELECT count(*) FROM trades")[0][0]


async def test_pages_of_candles_do_not_shift_and_say_what_may_be_kept(
    exchange: Exchange, settlement: Settlement, market_history: MarketHistory, database: Database
) -> None:
    await trade_some(exchange, 1)
    await settled(exchange, settlement, market_history)
    now = rows(database, "SELECT extract(epoch FROM max(open_time))::bigint FROM candles WHERE interval_s = 60")[0][0]
    # The past of a market that nobody traded on before.
    as_superuser(
        database,
        """
        INSERT INTO candles SELECT 'BTCUSD', 60, to_timestamp(%s - 60 * n), n, n, n, n, 1, 1, 1, n, 1
        FROM generate_series(1, 10) AS n
        """,
        now,
    )
    request = pb.ListCandlesRequest(symbol="BTCUSD", page_size=4)
    found: list[int] = []
    kept: list[str] = []
    while True:
        answer, how_long = await market_history.ask_with_headers("ListCandles", request)
        found += [one.open_time.seconds for one in answer.candles]
        kept.append(how_long)
        assert all(one.closed for one in answer.candles[1 if len(kept) == 1 else 0 :])
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found == [now - 60 * number for number in range(11)]
    assert kept == [NOW, PAST, PAST]
    closed = pb.ListCandlesRequest(symbol="BTCUSD", end_time=Timestamp(seconds=now - 60))
    answer, how_long = await market_history.ask_with_headers("ListCandles", closed)
    assert ([one.open_time.seconds for one in answer.candles], how_long) == (found[2:], PAST)
    nothing = pb.ListCandlesRequest(symbol="BTCUSD", end_time=Timestamp(seconds=60))
    answer, how_long = await market_history.ask_with_headers("ListCandles", nothing)
    assert (len(answer.candles), how_long) == (0, PAST)
    part = pb.ListCandlesRequest(
        symbol="BTCUSD", start_time=Timestamp(seconds=now - 239), end_time=Timestamp(seconds=now - 119, nanos=1)
    )
    answer = await market_history.ask("ListCandles", part)
    assert [one.open_time.seconds for one in answer.candles] == [now - 120, now - 180]


@pytest.mark.usefixtures("settlement")
async def test_a_candle_stream_goes_on_anywhere(exchange: Exchange, market_history: MarketHistory) -> None:
    await trade_some(exchange, 1)
    await market_history.caught_up(exchange)
    stream = market_history.stream("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD", interval="1d"))
    snapshot = await stream.next()
    assert (snapshot.snapshot, snapshot.prev_sequence, len(snapshot.candles.candles)) == (True, 0, 1)
    await trade_some(exchange, 2)
    await market_history.caught_up(exchange)
    (expected,) = (
        await market_history.ask("ListCandles", pb.ListCandlesRequest(symbol="BTCUSD", interval="1d"))
    ).candles
    updates = await stream.until(lambda update: expected in update.candles.candles)
    for before, after in zip([snapshot, *updates], updates, strict=False):
        assert after.prev_sequence == before.sequence
        assert not after.snapshot
    market_history.candles.heartbeat(market_history.history.head_sequence, 1_000)
    beat = await stream.next()
    assert beat.sequence == beat.prev_sequence == updates[-1].sequence
    assert beat.heartbeat.head_sequence == exchange.engine.state.sequence
    await stream.cancel()
    # Each message's token continues behind it: missed is told at once, in one message.
    for update in (snapshot, *updates):
        again = market_history.stream(
            "StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD", interval="1d", resume_token=update.resume_token)
        )
        await trade_some(exchange, 1)
        first = await again.next()
        assert (first.prev_sequence, first.snapshot) == (update.sequence, False)
        await again.cancel()


async def test_a_candle_is_told_closed_by_the_next_command_of_any_kind(
    exchange: Exchange, market_history: MarketHistory
) -> None:
    await market_history.caught_up(exchange)
    stream = market_history.stream("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD", interval="1s"))
    assert not (await stream.next()).candles.candles, "nothing traded yet"
    await trade_some(exchange, 1)
    second = (await stream.next()).candles.candles[-1].open_time.seconds

    while exchange.engine.state.time_ns // 1_000_000_000 <= second:
        await exchange.demo.buy("0.01", "40000")
    (closed,) = (await stream.until(lambda update: any(one.closed for one in update.candles.candles)))[
        -1
    ].candles.candles[:1]
    assert (closed.open_time.seconds, closed.closed) == (second, True)


async def test_tickers_are_told_when_they_change_and_of_markets_without_trades(
    exchange: Exchange, market_history: MarketHistory
) -> None:
    await market_history.caught_up(exchange)
    names = [one.symbol for one in (await market_history.ask("ListTickers", pb.ListTickersRequest())).tickers]
    assert names == sorted(market_history.books.markets)
    paged: list[str] = []
    request = pb.ListTickersRequest(page_size=1)
    while not paged or request.page_token:
        answer, how_long = await market_history.ask_with_headers("ListTickers", request)
        paged += [one.symbol for one in answer.tickers]
        request.page_token = answer.next_page_token
        assert how_long == NOW
    assert paged == names
    everything = market_history.stream("StreamTickers", pb.StreamTickersRequest())
    one = market_history.stream("StreamTickers", pb.StreamTickersRequest(symbols=["btc/usd"]))
    snapshots = [await everything.next(), await one.next()]
    assert [[ticker.symbol for ticker in each.tickers.tickers] for each in snapshots] == [names, ["BTCUSD"]]
    assert snapshots[1].tickers.tickers[0].last_price == ""
    await exchange.maker.sell("0.5", "50000")
    await exchange.demo.buy("0.1", "50000")
    await market_history.caught_up(exchange)
    for stream, snapshot in ((everything, snapshots[0]), (one, snapshots[1])):
        messages = await stream.until(lambda update: update.tickers.tickers[0].trade_count == 1)
        assert messages[0].prev_sequence == snapshot.sequence
        (ticker,) = messages[-1].tickers.tickers
        assert (ticker.symbol, ticker.last_price, ticker.best_ask, ticker.best_ask_quantity) == (
            "BTCUSD",
            "50000.00",
            "50000.00",
            "0.40000",
        )
    again = market_history.stream(
        "StreamTickers", pb.StreamTickersRequest(symbols=["BTCUSD"], resume_token=snapshots[1].resume_token)
    )
    first = await again.next()
    assert (first.prev_sequence, first.snapshot, first.tickers.tickers[0].trade_count) == (
        snapshots[1].sequence,
        False,
        1,
    )


async def test_streams_end_with_a_drain_notice(exchange: Exchange, market_history: MarketHistory) -> None:
    await market_history.caught_up(exchange)
    open_streams = [
        market_history.stream("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD")),
        market_history.stream("StreamTickers", pb.StreamTickersRequest()),
    ]
    for stream in open_streams:
        await stream.next()
    await eventually(lambda: market_history.candles.subscribers() + market_history.tickers.subscribers() == 2, "both")
    for kind in (market_history.candles, market_history.tickers):
        kind.end(11, 5_000_000_000)
    for stream in open_streams:
        drain, end = (await stream.rest())[-2:]
        assert drain.drain.resume_token
        assert end.WhichOneof("update") == "end"


BAD_REQUESTS: list[tuple[str, Any, str, str | None]] = [
    ("ListCandles", pb.ListCandlesRequest(), "FIELD_REQUIRED", "symbol"),
    ("ListCandles", pb.ListCandlesRequest(symbol="NOPE"), "UNKNOWN_SYMBOL", None),
    ("ListCandles", pb.ListCandlesRequest(symbol="BTCUSD", interval="2m"), "INVALID_FIELD", "interval"),
    ("ListCandles", pb.ListCandlesRequest(symbol="BTCUSD", page_size=1_001), "INVALID_FIELD", "page_size"),
    ("ListCandles", pb.ListCandlesRequest(symbol="BTCUSD", page_size=-1), "INVALID_FIELD", "page_size"),
    ("ListCandles", pb.ListCandlesRequest(symbol="BTCUSD", page_token="x"), "INVALID_PAGE_TOKEN", "page_token"),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSD", start_time=Timestamp(seconds=9), end_time=Timestamp(seconds=8)),
        "INVALID_FIELD",
        "end_time",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSD", start_time=Timestamp(seconds=-1)),
        "INVALID_FIELD",
        "start_time",
    ),
    ("ListTradeHistory", pb.ListTradeHistoryRequest(symbol="NOPE"), "UNKNOWN_SYMBOL", None),
    (
        "ListTradeHistory",
        pb.ListTradeHistoryRequest(symbol="BTCUSD", page_size=1_001),
        "INVALID_FIELD",
        "page_size",
    ),
    (
        "ListTradeHistory",
        pb.ListTradeHistoryRequest(symbol="BTCUSD", end_time=Timestamp(seconds=2**40)),
        "INVALID_FIELD",
        "end_time",
    ),
    (
        "ListTradeHistory",
        pb.ListTradeHistoryRequest(symbol="BTCUSD", end_time=Timestamp(seconds=1, nanos=-1)),
        "INVALID_FIELD",
        "end_time",
    ),
    ("GetTicker", pb.GetTickerRequest(symbol="NO'PE"), "UNKNOWN_SYMBOL", None),
    ("ListTickers", pb.ListTickersRequest(page_token="zzzz"), "INVALID_PAGE_TOKEN", "page_token"),
]


async def test_bad_requests_are_refused_with_a_reason(exchange: Exchange, market_history: MarketHistory) -> None:
    await market_history.caught_up(exchange)
    for method, request, reason, field in BAD_REQUESTS:
        refusal = await refused(market_history.ask(method, request))
        assert refusal.reason == reason, request
        assert field is None or refusal.metadata["field"] == field


async def test_bad_subscriptions_are_refused_with_a_reason(exchange: Exchange, market_history: MarketHistory) -> None:
    await market_history.caught_up(exchange)
    stream = market_history.stream("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD", interval="1m"))
    token = (await stream.next()).resume_token
    for method, request, reason in (
        ("StreamCandles", pb.StreamCandlesRequest(symbol="NOPE"), "UNKNOWN_SYMBOL"),
        ("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD", interval="1M"), "INVALID_FIELD"),
        ("StreamCandles", pb.StreamCandlesRequest(symbol="BTCUSD", resume_token="?"), "INVALID_RESUME_TOKEN"),
        (
            "StreamCandles",
            pb.StreamCandlesRequest(symbol="BTCUSD", interval="1s", resume_token=token),
            "INVALID_RESUME_TOKEN",
        ),
        ("StreamTickers", pb.StreamTickersRequest(symbols=["NOPE"]), "UNKNOWN_SYMBOL"),
        ("StreamTickers", pb.StreamTickersRequest(symbols=["BTCUSD"] * 101), "INVALID_FIELD"),
        ("StreamTickers", pb.StreamTickersRequest(resume_token=token), "INVALID_RESUME_TOKEN"),
    ):
        assert (await refused(market_history.stream(method, request).next())).reason == reason, request


async def test_tokens_of_another_page_are_refused(
    exchange: Exchange, settlement: Settlement, market_history: MarketHistory
) -> None:
    await trade_some(exchange, 3)
    await settled(exchange, settlement, market_history)
    answer = await market_history.ask("ListTradeHistory", pb.ListTradeHistoryRequest(symbol="BTCUSD", page_size=1))
    other = pb.ListTradeHistoryRequest(
        symbol="BTCUSD", start_time=Timestamp(seconds=1), page_token=answer.next_page_token
    )
    assert (await refused(market_history.ask("ListTradeHistory", other))).reason == "INVALID_PAGE_TOKEN"
