"""`pincex feeds`: the connections to other venues, and what their prices come to."""

from typing import Annotated

import typer
from rich.markup import escape

from pincex_client import venue_feeds
from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, show_fields

Symbol = Annotated[str, typer.Argument(help="Such as BTCUSD.")]


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="Feeds of other venues, on the ops listener.", no_args_is_help=True)
    group.command("status")(status)
    group.command("restart")(restart)
    group.command("compare")(compare)
    return group


def status(context: typer.Context) -> None:
    """Show whether each feed is up, how old its last message is, and how long messages took."""
    found = call(context, lambda exchange: exchange.admin.feeds.status())
    if settings_of(context).as_json:
        print_json(found)
        return
    out.print(
        render.table(
            (
                "feed",
                "state",
                "markets",
                "last message",
                "p50 ms",
                "p99 ms",
                "messages",
                "reconnects",
                "gaps",
                "bad",
                "",
            ),
            [_row(feed) for feed in found.feeds],
        )
    )
    out.print(f"{found.queue_depth:,} ticks wait in market_data_queue")


def restart(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `status` shows it.")],
    *,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
) -> None:
    """Drop a feed's connection and begin anew, at once."""
    show_fields(context, call(context, lambda exchange: exchange.admin.feeds.restart(name, reason=reason)))


def compare(context: typer.Context, symbol: Symbol) -> None:
    """Show the price of each venue beside the reference price and our own book, and which do not count, and why."""
    found = call(context, lambda exchange: exchange.admin.feeds.compare(symbol))
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = [
        (
            venue.venue,
            venue.bid,
            venue.ask,
            venue.price,
            f"{venue.deviation_ppm:+,d}" if venue.price is not None else "",
            render.plain(venue.price_time),
            "counts" if venue.included else venue.why,
        )
        for venue in found.venues
    ]
    out.print(render.table(("venue", "bid", "ask", "middle", "ppm off", "when", ""), rows))
    reference = "none: no venue counts" if found.reference_price is None else render.amount(found.reference_price)
    out.print(f"{escape(found.symbol)} reference price {reference}")
    own = [render.amount(price) if price is not None else "-" for price in (found.own_bid, found.own_ask)]
    out.print(f"own book {own[0]} / {own[1]}")


def _row(feed: venue_feeds.VenueFeed) -> tuple[object, ...]:
    return (
        feed.name,
        feed.state,
        ", ".join(feed.symbols),
        render.plain(feed.last_message_time) if feed.last_message_time else "never",
        f"{feed.latency_p50_ms:.1f}",
        f"{feed.latency_p99_ms:.1f}",
        feed.messages,
        feed.reconnects,
        feed.gaps,
        feed.bad_checksums,
        feed.problem,
    )
