"""Commands about markets, books and credits."""

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live

from pincex_client.book import BookStream, LiveBook
from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, usage_error
from pincex_client.client import ExchangeClient
from pincex_client.models import Book

REFRESH_PER_SECOND = 10
STREAM_DEPTHS = (10, 50, 200, 0)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (markets, book, credit):
        app.command()(command)


def markets(context: typer.Context) -> None:
    """List the markets and their rules."""
    found = call(context, lambda exchange: exchange.list_markets())
    if settings_of(context).as_json:
        print_json({"markets": found})
    else:
        out.print(render.markets_table(found) if found else "no markets")


def book(
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(help="Such as BTCUSD, BTC/USD or btc-usd.")],
    *,
    depth: Annotated[int, typer.Option(min=1, max=5_000, help="Levels of each side.")] = 10,
    watch: Annotated[bool, typer.Option("--watch", help="A live ladder, until Ctrl-C.")] = False,
    at_sequence: Annotated[
        int | None, typer.Option(min=1, help="The book as it was after this sequence, from the journal.")
    ] = None,
) -> None:
    """Show the order book; --watch keeps it live, verified by sequence and checksum."""
    settings = settings_of(context)
    if watch and at_sequence is not None:
        usage_error(settings, "--watch shows the present, --at-sequence the past: leave one out")
    if not watch:
        found = call(context, lambda exchange: exchange.get_order_book(symbol, depth=depth, as_of_sequence=at_sequence))
        if settings.as_json:
            print_json(found)
        else:
            out.print(render.ladder(found.symbol, found.bids, found.asks, footer=_totals(found)))
        return
    if settings.as_json:
        call(context, lambda exchange: _watch_lines(exchange, symbol, depth), endless=True)
    else:
        call(context, lambda exchange: _watch_ladder(exchange, symbol, depth), endless=True)


def credit(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="Made if it does not exist.")],
    asset: Annotated[str, typer.Argument(help="Such as USD.")],
    amount: Annotated[str, typer.Argument(help="Plain decimal, above zero.")],
    *,
    request_id: Annotated[str, typer.Option(help="The same id moves the money once.")] = "",
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
) -> None:
    """Add money to an account, as a deposit would (operators and development)."""
    balance = call(
        context,
        lambda exchange: exchange.admin.credit_account(account, asset, amount, request_id=request_id, reason=reason),
    )
    if settings_of(context).as_json:
        print_json(balance)
    else:
        out.print(render.balances_table([balance]))


def stream_depth(depth: int) -> int:
    """The smallest depth that streams offer and that shows so many levels; 0 is all."""
    return next(offered for offered in STREAM_DEPTHS if offered == 0 or offered >= depth)


async def _watch_lines(exchange: ExchangeClient, symbol: str, depth: int) -> None:
    async with exchange.book_stream(symbol, depth=stream_depth(depth)) as stream:
        async for live in stream:
            content = {
                "symbol": live.symbol,
                "sequence": live.sequence,
                "mode": live.mode,
                "bids": live.bids(depth),
                "asks": live.asks(depth),
            }
            print_json(content, lines=True)


async def _watch_ladder(exchange: ExchangeClient, symbol: str, depth: int) -> None:
    async with exchange.book_stream(symbol, depth=stream_depth(depth)) as stream:

        def shown() -> RenderableType:
            return _live_ladder(stream, depth)

        # The screen asks for the book ten times a second, however fast it changes.
        with Live(get_renderable=shown, console=out, refresh_per_second=REFRESH_PER_SECOND):
            async for _ in stream:
                pass


def _live_ladder(stream: BookStream, depth: int) -> RenderableType:
    live: LiveBook = stream.book
    if not live.live:
        return f"{live.symbol}: waiting for a book"
    footer = f"sequence {live.sequence:,}  {live.mode}"
    troubles = (("reconnects", stream.reconnects), ("gaps", stream.gaps), ("mismatches", stream.mismatches))
    footer += "".join(f"  {name} {count}" for name, count in troubles if count)
    return render.ladder(live.symbol, live.bids(depth), live.asks(depth), footer=footer)


def _totals(book: Book) -> str:
    bids = f"{book.bid_order_count:,} bids for {render.amount(book.bid_quantity)}"
    asks = f"{book.ask_order_count:,} asks for {render.amount(book.ask_quantity)}"
    return f"{bids}, {asks}, sequence {book.sequence:,}, {book.mode}"
