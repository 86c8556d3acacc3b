"""Commands about what markets do and did: candles, tickers, and a screen to watch one."""

import asyncio
import contextlib
import csv
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, to_json, usage_error
from pincex_client.cli.markets import REFRESH_PER_SECOND, stream_depth
from pincex_client.cli.moments import moment
from pincex_client.client import ExchangeClient
from pincex_client.errors import Unavailable
from pincex_client.market_data import INTERVALS
from pincex_client.models import Candle, Ticker, Trade
from pincex_client.streams import ResumableStream

TAPE_ROWS = 15
PER_HUNDRED = 100


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (watch, candles, ticker):
        app.command()(command)


def candles(
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(help="Such as BTCUSD, BTC/USD or btc-usd.")],
    *,
    interval: Annotated[str, typer.Option(help=f"One of {', '.join(INTERVALS)}.")] = "1m",
    start: Annotated[str, typer.Option("--from", help="From this time on: ISO 8601, UTC where it names no zone.")] = "",
    end: Annotated[str, typer.Option("--to", help="Before this time.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="So many at most, the newest.")] = 100,
    as_csv: Annotated[bool, typer.Option("--csv", help="A CSV file on standard output.")] = False,
) -> None:
    """List the candles of a market, the newest last; intervals without trades have none."""
    if as_csv and settings_of(context).as_json:
        usage_error(settings_of(context), "--csv or --json: leave one out")
    from_time, to_time = moment(context, start), moment(context, end)
    found = call(
        context,
        lambda exchange: exchange.market_data.list_candles(symbol, interval, start=from_time, end=to_time, limit=limit),
    )[::-1]
    if as_csv:
        names = [field.name for field in fields(Candle)]
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([to_json(getattr(candle, name)) for name in names] for candle in found)
    elif settings_of(context).as_json:
        print_json({"candles": found})
    else:
        out.print(candles_table(found) if found else "no trades in that time")


def ticker(
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(help="Such as BTCUSD; without one all markets.")] = "",
) -> None:
    """Show the last 24 hours of one market, or of all."""

    async def ask(exchange: ExchangeClient) -> list[Ticker]:
        return [await exchange.market_data.get_ticker(symbol)] if symbol else await exchange.market_data.list_tickers()

    found = call(context, ask)
    if settings_of(context).as_json:
        print_json(found[0] if symbol else {"tickers": found})
    else:
        out.print(tickers_table(found) if found else "no markets")


def watch(
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(help="Such as BTCUSD, BTC/USD or btc-usd.")],
    *,
    depth: Annotated[int, typer.Option(min=1, max=200, help="Levels of each side.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="One frame, and no more.")] = False,
) -> None:
    """Watch a market, until Ctrl-C: ladder, tape and the last 24 hours, verified, and marked where they may be old.

    Where the output is no terminal, or with --json, one frame is printed.
    """
    settings = settings_of(context)
    if not once and not settings.as_json and sys.stdout.isatty():
        call(context, lambda exchange: _watch(exchange, symbol, depth), endless=True)
        return

    async def last_day(exchange: ExchangeClient) -> Ticker | None:
        # Book and tape have another source: they are shown without it.
        with contextlib.suppress(Unavailable):
            return await exchange.market_data.get_ticker(symbol)
        return None

    async def frame(exchange: ExchangeClient) -> Any:
        return await asyncio.gather(
            last_day(exchange),
            exchange.get_order_book(symbol, depth=depth),
            exchange.list_market_trades(symbol, limit=TAPE_ROWS),
        )

    summary, book, trades = call(context, frame)
    if settings.as_json:
        print_json({"ticker": summary, "book": book, "trades": trades})
    else:
        footer = f"sequence {book.sequence:,}  {book.mode}"
        out.print(screen(summary, render.ladder(book.symbol, book.bids, book.asks, footer=footer), trades))


async def _watch(exchange: ExchangeClient, symbol: str, depth: int) -> None:
    tape: deque[Trade] = deque(maxlen=TAPE_ROWS)
    books = exchange.book_stream(symbol, depth=stream_depth(depth))
    trades = exchange.trade_stream(symbol)
    tickers = exchange.market_data.ticker_stream(symbol)
    streams: dict[str, ResumableStream[Any]] = {"book": books, "trades": trades, "ticker": tickers}

    def shown() -> RenderableType:
        old = [f"{name} {stream.trouble}" for name, stream in streams.items() if stream.stale]
        warning = Text(f"may be old: {', '.join(old)}" if old else "", style="bold yellow")
        book = books.book
        if not book.live:
            return Group(Text(f"{book.symbol}: waiting for a book"), warning)
        footer = f"sequence {book.sequence:,}  {book.mode}"
        summary = next(iter(tickers.tickers.values()), None)
        ladder = render.ladder(book.symbol, book.bids(depth), book.asks(depth), footer=footer)
        return Group(screen(summary, ladder, list(tape)[::-1]), warning)

    async def read(stream: Any, take: Callable[[Any], object]) -> None:
        async for update in stream:
            take(update)

    async with AsyncExitStack() as stack:
        for stream in streams.values():
            await stack.enter_async_context(stream)
        # The screen asks for what there is ten times a second, however fast it changes.
        with Live(get_renderable=shown, console=out, refresh_per_second=REFRESH_PER_SECOND):
            await _first_to_end(read(books, bool), read(trades, tape.append), read(tickers, bool))


async def _first_to_end(*work: Awaitable[None]) -> None:
    """All at once, until one fails; then the others end, too."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def screen(summary: Ticker | None, ladder: RenderableType, trades: Sequence[Trade]) -> RenderableType:
    """The last 24 hours above, the ladder beside the tape, the newest trade first."""
    tape = render.table(
        ("time (UTC)", "quantity", "price"),
        [
            (
                Text(trade.trade_time.strftime("%H:%M:%S.%f")[:-3] if trade.trade_time else ""),
                trade.quantity,
                Text(render.amount(trade.price), style=render.SIDE_STYLE.get(trade.taker_side, "")),
            )
            for trade in trades
        ],
        title="trades",
    )
    return Group(_summary_line(summary), Columns([ladder, tape], padding=(0, 4)))


def _summary_line(summary: Ticker | None) -> Text:
    if summary is None:
        return Text("the last 24 hours are not known now", style="bold yellow")
    if summary.last_price is None:
        return Text("no trades yet", style="dim")
    change = summary.price_change or summary.last_price * 0
    parts = [
        f"last {render.amount(summary.last_price)}",
        f"24 h {change:+,f}{_percent(summary)}",
        f"high {render.amount(summary.high_price or summary.last_price)}",
        f"low {render.amount(summary.low_price or summary.last_price)}",
        f"volume {render.amount(summary.volume)}",
    ]
    return Text("  ".join(parts), style="green" if change > 0 else "red" if change < 0 else "")


def _percent(summary: Ticker) -> str:
    if not summary.open_price or summary.price_change is None:
        return ""
    return f" ({summary.price_change * PER_HUNDRED / summary.open_price:+.2f}%)"


def candles_table(found: Sequence[Candle]) -> Table:
    """Candles, one a line."""
    columns = ("open (UTC)", "open", "high", "low", "close", "volume", "trades", "")
    rows = [
        (
            candle.open_time,
            candle.open,
            candle.high,
            candle.low,
            Text(render.amount(candle.close), style="green" if candle.close >= candle.open else "red"),
            candle.volume,
            candle.trade_count,
            "" if candle.closed else "open",
        )
        for candle in found
    ]
    return render.table(columns, rows)


def tickers_table(found: Sequence[Ticker]) -> Table:
    """Tickers, one a line."""
    columns = ("symbol", "last", "24 h", "%", "bid", "ask", "high", "low", "volume", "trades")
    rows = [
        (
            one.symbol,
            _plain(one.last_price),
            "" if one.price_change is None else f"{one.price_change:+,f}",
            _percent(one).strip(" ()"),
            _plain(one.best_bid),
            _plain(one.best_ask),
            _plain(one.high_price),
            _plain(one.low_price),
            _plain(one.volume),
            one.trade_count,
        )
        for one in found
    ]
    return render.table(columns, rows)


def _plain(value: Any) -> str:
    """An amount with the digits of its own market, which need not be those of the next line."""
    return "" if value is None else render.amount(value)
