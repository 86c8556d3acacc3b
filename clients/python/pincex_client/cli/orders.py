"""Commands about the caller's own orders, trades, balances and events."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from pincex_client import models
from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, show_fields, usage_error
from pincex_client.client import ExchangeClient
from pincex_client.feeds import OrdersSnapshot

Symbol = Annotated[str, typer.Argument(help="Such as BTCUSD, BTC/USD or btc-usd.")]
OrderId = Annotated[str, typer.Argument(help="As `place` and `orders` show it.")]
OptionalOrderId = Annotated[str, typer.Argument(help="As `place` and `orders` show it.", show_default=False)]
ClientId = Annotated[str, typer.Option("--client-order-id", help="Name the order by the id you chose.")]
RequestId = Annotated[str, typer.Option(help="Makes the command repeatable: a repeat gets the first answer.")]
ALL_STATUSES = tuple(models.OrderStatus)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (place, cancel, replace, reduce, orders, order, trades, balances, limits, events):
        app.command()(command)


def place(
    context: typer.Context,
    symbol: Symbol,
    side: Annotated[str, typer.Argument(help="buy or sell.")],
    quantity: Annotated[str, typer.Argument(help="How much of the base asset.")],
    price: Annotated[str | None, typer.Argument(help="Limit price; without one: a market order.")] = None,
    *,
    order_type: Annotated[str, typer.Option("--type", help="limit, market, stop, stop_limit.")] = "",
    tif: Annotated[str, typer.Option(help="gtc, ioc, fok, gtd.")] = "",
    post_only: Annotated[bool, typer.Option("--post-only", help="Refuse rather than trade at once.")] = False,
    stop_price: Annotated[str | None, typer.Option(help="Trigger price of stop orders.")] = None,
    stp: Annotated[str, typer.Option(help="none, cancel_newest, cancel_oldest, cancel_both.")] = "",
    expire_time: Annotated[
        str | None, typer.Option(help="With --tif gtd: ISO 8601 with zone, such as 2030-01-31T12:00:00Z.")
    ] = None,
    client_order_id: Annotated[str, typer.Option(help="Your own id: makes the command repeatable.")] = "",
) -> None:
    """Place an order. It is durable when this returns."""
    options: dict[str, Any] = {
        "order_type": order_type,
        "time_in_force": tif,
        "post_only": post_only,
        "stop_price": stop_price,
        "self_trade_prevention": stp,
        "client_order_id": client_order_id,
    }

    async def do(exchange: ExchangeClient) -> models.Order:
        expires = None if expire_time is None else datetime.fromisoformat(expire_time)
        return await exchange.place_order(symbol, side, quantity, price, expire_time=expires, **options)

    _show_order(context, call(context, do))


def cancel(
    context: typer.Context,
    order_id: OptionalOrderId = "",
    *,
    client_order_id: ClientId = "",
    everything: Annotated[bool, typer.Option("--all", help="All open orders.")] = False,
    symbol: Annotated[str, typer.Option(help="With --all: only this market's.")] = "",
    request_id: RequestId = "",
) -> None:
    """Cancel an order, or all."""
    settings = settings_of(context)
    if everything == bool(order_id or client_order_id):
        usage_error(settings, "name one order, by ORDER_ID or --client-order-id, or say --all")
    if everything:
        cancelled = call(context, lambda exchange: exchange.cancel_all_orders(symbol, request_id=request_id))
        if settings.as_json:
            print_json(cancelled)
        else:
            out.print(f"cancelled {cancelled.cancelled_count} orders")
        return
    _show_order(
        context,
        call(
            context,
            lambda exchange: exchange.cancel_order(order_id, client_order_id=client_order_id, request_id=request_id),
        ),
    )


def replace(
    context: typer.Context,
    order_id: OptionalOrderId = "",
    *,
    price: Annotated[str, typer.Option(help="New limit price.")],
    quantity: Annotated[str, typer.Option(help="New open quantity, beside what was filled.")],
    client_order_id: ClientId = "",
    expected_filled: Annotated[
        str | None, typer.Option(help="Refuse if another quantity was filled meanwhile.")
    ] = None,
    request_id: RequestId = "",
) -> None:
    """Give an order a new price and open quantity. It keeps its time priority only if it shrinks under rules 2."""
    _one_id(context, order_id, client_order_id)
    changed = call(
        context,
        lambda exchange: exchange.replace_order(
            order_id,
            price=price,
            quantity=quantity,
            client_order_id=client_order_id,
            expected_filled_quantity=expected_filled,
            request_id=request_id,
        ),
    )
    _show_order(context, changed)


def reduce(
    context: typer.Context,
    order_id: OptionalOrderId = "",
    *,
    quantity: Annotated[str, typer.Option("--quantity", "--by", help="What to take off the open quantity.")],
    client_order_id: ClientId = "",
    request_id: RequestId = "",
) -> None:
    """Take quantity off an order; it keeps its time priority."""
    _one_id(context, order_id, client_order_id)
    changed = call(
        context,
        lambda exchange: exchange.reduce_order(
            order_id, quantity=quantity, client_order_id=client_order_id, request_id=request_id
        ),
    )
    _show_order(context, changed)


def orders(
    context: typer.Context,
    *,
    symbol: Annotated[str, typer.Option(help="Only this market.")] = "",
    side: Annotated[str, typer.Option(help="Only buy or sell.")] = "",
    status: Annotated[list[str] | None, typer.Option(help="pending, partial, filled, cancelled; repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List orders, newest first; open ones unless told otherwise."""
    statuses = ALL_STATUSES if everything else tuple(status or ())
    found = call(context, lambda exchange: exchange.list_orders(symbol, limit=limit, statuses=statuses, side=side))
    if settings_of(context).as_json:
        print_json({"orders": found})
    elif found:
        out.print(render.orders_table(found))
    else:
        out.print("no orders" if statuses else "no open orders")


def order(context: typer.Context, order_id: OptionalOrderId = "", *, client_order_id: ClientId = "") -> None:
    """Show one order."""
    _one_id(context, order_id, client_order_id)
    _show_order(context, call(context, lambda exchange: exchange.get_order(order_id, client_order_id=client_order_id)))


def trades(
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(help="Only this market.", show_default=False)] = "",
    *,
    market: Annotated[bool, typer.Option("--market", help="The public tape instead of your own trades.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="With --market: go on until Ctrl-C.")] = False,
    order_id: Annotated[str, typer.Option(help="Only this order's.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List your own trades, newest first; --market shows everybody's."""
    settings = settings_of(context)
    if (market or watch) and not symbol:
        usage_error(settings, "the public tape needs a SYMBOL")
    if watch:
        call(
            context,
            lambda exchange: _print_lines(exchange.trade_stream(symbol), as_json=settings.as_json),
            endless=True,
        )
        return
    if market:
        tape = call(context, lambda exchange: exchange.list_market_trades(symbol, limit=limit))
        _show(context, "trades", tape, render.trades_table(tape))
        return
    own = call(context, lambda exchange: exchange.list_fills(symbol, order_id=order_id, limit=limit))
    _show(context, "trades", own, render.fills_table(own))


def balances(context: typer.Context) -> None:
    """Show what the account has, free and held by open orders."""
    found = call(context, lambda exchange: exchange.list_balances())
    _show(context, "balances", found, render.balances_table(found))


def limits(context: typer.Context) -> None:
    """Show how many orders you may send and have open, and how much of it is in use."""
    show_fields(context, call(context, lambda exchange: exchange.get_limits()))


def events(context: typer.Context) -> None:
    """Follow the account's own events until Ctrl-C: open orders first, then each change and fill."""
    settings = settings_of(context)
    call(context, lambda exchange: _print_lines(exchange.order_events(), as_json=settings.as_json), endless=True)


async def _print_lines(updates: AsyncIterator[Any], *, as_json: bool) -> None:
    async for update in updates:
        if as_json:
            kind = type(update).__name__
            print_json({"type": kind, **_fields(update)}, lines=True)
        elif isinstance(update, OrdersSnapshot):
            out.print(f"[dim]{len(update.orders)} open orders at sequence {update.sequence}[/dim]")
            for one in update.orders:
                out.print(event_line(one))
        else:
            out.print(event_line(update))


def event_line(update: models.Order | models.Fill | models.Trade) -> str:
    """One event in one line, with colours."""
    match update:
        case models.Order():
            colour = render.SIDE_STYLE.get(update.side, "")
            price = "market" if update.price is None else f"@ {render.amount(update.price)}"
            return (
                f"order {update.order_id}  [{colour}]{update.side}[/{colour}] {render.amount(update.quantity)} "
                f"{escape(update.symbol)} {price}  {update.status} open {render.amount(update.open_quantity)} "
                f"{update.cancel_reason.lower()}"
            ).rstrip()
        case models.Fill():
            colour = render.SIDE_STYLE.get(update.side, "")
            role = "maker" if update.is_maker else "taker"
            return (
                f"fill  {update.trade_id}  [{colour}]{update.side}[/{colour}] {render.amount(update.quantity)} "
                f"{escape(update.symbol)} @ {render.amount(update.price)}  order {update.order_id} {role} "
                f"fee {render.amount(update.fee)}"
            )
    colour = render.SIDE_STYLE.get(update.taker_side, "")
    when = render.plain(update.trade_time)
    return (
        f"{when}  [{colour}]{update.taker_side}[/{colour}] {render.amount(update.quantity)} "
        f"{escape(update.symbol)} @ {render.amount(update.price)}"
    )


def _fields(update: Any) -> dict[str, Any]:
    return {name: getattr(update, name) for name in update.__dataclass_fields__}


def _one_id(context: typer.Context, order_id: str, client_order_id: str) -> None:
    if bool(order_id) == bool(client_order_id):
        usage_error(settings_of(context), "name the order by ORDER_ID or by --client-order-id")


def _show_order(context: typer.Context, found: models.Order) -> None:
    if settings_of(context).as_json:
        print_json(found)
    else:
        out.print(render.order_details(found))


def _show(context: typer.Context, name: str, content: list[Any], shown: Any) -> None:
    if settings_of(context).as_json:
        print_json({name: content})
    elif content:
        out.print(shown)
    else:
        out.print(f"no {name}")
