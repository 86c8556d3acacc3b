"""`pincex mm`: the exchange's own market maker, on the ops listener."""

from decimal import Decimal
from typing import Annotated

import typer
from rich.markup import escape

from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, usage_error
from pincex_client.market_making import MarketMakerStatus

Symbol = Annotated[str, typer.Argument(help="Such as BTCUSD.")]
Reason = Annotated[str, typer.Option(help="For the record.")]


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="The exchange's market maker: on the ops listener.", no_args_is_help=True)
    for command in (status, enable, disable, spreads, quoting):
        group.command()(command)
    return group


def status(context: typer.Context) -> None:
    """Show what it quotes, holds and has earned, and why it does not quote."""
    _show(context, call(context, lambda exchange: exchange.admin.market_maker.status()))


def enable(context: typer.Context, *, reason: Reason = "") -> None:
    """Have it quote from now on; losses count anew."""
    _show(context, call(context, lambda exchange: exchange.admin.market_maker.enable(reason=reason)))


def disable(context: typer.Context, *, reason: Reason = "") -> None:
    """Have it take back all its orders and quote no more; ends once none is left."""
    _show(context, call(context, lambda exchange: exchange.admin.market_maker.disable(reason=reason)))


def spreads(
    context: typer.Context,
    symbol: Symbol,
    *,
    least: Annotated[str, typer.Option("--min", help="Fraction of the reference price, such as 0.02.")] = "",
    most: Annotated[str, typer.Option("--max", help="The same, when the price moves.")] = "",
) -> None:
    """Set the spread between best bid and best ask of a market."""
    values = {name: value for name, value in (("min_spread", least), ("max_spread", most)) if value}
    if not values:
        usage_error(settings_of(context), "say --min, --max or both")
    _show(context, call(context, lambda exchange: exchange.admin.market_maker.set_spreads({symbol: values})))


def quoting(
    context: typer.Context,
    symbol: Symbol,
    *,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it quotes this market.")] = None,
    levels: Annotated[int | None, typer.Option(min=1, help="Orders on each side.")] = None,
    level_quantity: Annotated[str | None, typer.Option(help="Base asset of each.")] = None,
    max_inventory: Annotated[str | None, typer.Option(help="Base asset that it may hold or owe.")] = None,
    max_daily_loss: Annotated[str | None, typer.Option(help="Quote asset; then it stops.")] = None,
    reason: Reason = "",
) -> None:
    """Set how much it quotes in a market, and what it may hold and lose."""
    found = call(
        context,
        lambda exchange: exchange.admin.market_maker.set_quoting(
            symbol,
            enabled=enabled,
            levels=levels,
            level_quantity=level_quantity,
            max_inventory=max_inventory,
            max_daily_loss=max_daily_loss,
            reason=reason,
        ),
    )
    _show(context, found)


def _show(context: typer.Context, found: MarketMakerStatus) -> None:
    if settings_of(context).as_json:
        print_json(found)
        return
    connection = "connected" if found.connected else "not connected"
    out.print(f"{'enabled' if found.enabled else 'disabled'}, {connection}, account {escape(found.account) or '-'}")
    rows = [
        (
            one.symbol,
            one.state,
            f"{render.amount(one.min_spread)}-{render.amount(one.max_spread)}",
            f"{one.levels} x {render.amount(one.level_quantity)}",
            _price(one.reference_price),
            _price(one.bid_price),
            _price(one.ask_price),
            one.open_orders,
            f"{render.amount(one.inventory)} of {render.amount(one.max_inventory)}",
            f"{render.amount(one.profit_today)} of {render.amount(-one.max_daily_loss)}",
        )
        for one in found.markets
    ]
    columns = ("market", "state", "spread", "levels", "reference", "bid", "ask", "orders", "inventory", "profit today")
    out.print(render.table(columns, rows))


def _price(value: Decimal | None) -> str:
    return "-" if value is None else render.amount(value)
