"""`pincex admin`: what operators do, on the ops listener."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape

from pincex_client import models
from pincex_client.cli import kyc, ledger, render, users, wallet
from pincex_client.cli.context import EXIT_REFUSED, call, out, print_json, settings_of, show_fields, usage_error

Symbol = Annotated[str, typer.Argument(help="Such as BTCUSD.")]
Reason = Annotated[str, typer.Option(help="For the record.")]
RequestId = Annotated[str, typer.Option(help="Makes the call repeatable.")]


class OnOff(StrEnum):
    """The two positions of a switch."""

    ON = "on"
    OFF = "off"


Position = Annotated[OnOff, typer.Argument(help="on or off.", case_sensitive=False)]


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="Operate the exchange: on the ops listener.", no_args_is_help=True)
    for name, command in COMMANDS.items():
        group.command(name)(command)
    users.add_to(group)
    ledger.add_to(group)
    kyc.add_to(group)
    wallet.add_to(group)
    return group


def halt(context: typer.Context, symbol: Symbol, *, reason: Reason = "", request_id: RequestId = "") -> None:
    """Stop a market whole: neither orders nor cancels."""
    _set_mode(context, symbol, "HALTED", reason, request_id)


def cancel_only(context: typer.Context, symbol: Symbol, *, reason: Reason = "", request_id: RequestId = "") -> None:
    """Let a market take cancels and reductions only."""
    _set_mode(context, symbol, "CANCEL_ONLY", reason, request_id)


def resume(context: typer.Context, symbol: Symbol, *, reason: Reason = "", request_id: RequestId = "") -> None:
    """Open a market again."""
    _set_mode(context, symbol, "OPEN", reason, request_id)


def circuit_breaker(
    context: typer.Context, position: Position, *, reason: Reason = "", request_id: RequestId = ""
) -> None:
    """On: cancels and reads only, on all markets."""
    _turn(context, "circuit_breaker", position, reason, request_id)


def new_orders(context: typer.Context, position: Position, *, reason: Reason = "", request_id: RequestId = "") -> None:
    """Off: new orders are refused; cancels, reductions and replacements go on."""
    _turn(context, "accept_new_orders", position, reason, request_id)


def maintenance(context: typer.Context, position: Position, *, reason: Reason = "", request_id: RequestId = "") -> None:
    """On: cancels and reads only."""
    _turn(context, "maintenance_mode", position, reason, request_id)


def switches(context: typer.Context) -> None:
    """Show the switches as they stand."""
    _show_switches(context, call(context, lambda exchange: exchange.admin.get_switches()))


def mass_cancel(
    context: typer.Context,
    *,
    account: Annotated[str, typer.Option(help="This account's orders.")] = "",
    symbol: Annotated[str, typer.Option(help="This market's orders.")] = "",
    api_key: Annotated[str, typer.Option(help="With --account: those that this key placed.")] = "",
    reason: Annotated[str, typer.Option(help="For the record. Required.")],
    request_id: RequestId = "",
) -> None:
    """The kill switch: cancel the open orders of an account, a market, an account in a market, or a key."""
    if not (account or symbol):
        usage_error(settings_of(context), "say whose: --account, --symbol or both")
    cancelled = call(
        context,
        lambda exchange: exchange.admin.mass_cancel(
            account=account, symbol=symbol, api_key=api_key, reason=reason, request_id=request_id
        ),
    )
    if settings_of(context).as_json:
        print_json(cancelled)
    else:
        out.print(f"cancelled {cancelled.cancelled_count} orders at sequence {cancelled.sequence:,}")


def limits(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="Whose.")],
    max_open_orders: Annotated[int, typer.Argument(min=0, help="0: no limit.")],
    *,
    reason: Reason = "",
) -> None:
    """Set how many open orders an account may have."""
    found = call(context, lambda exchange: exchange.admin.set_account_limits(account, max_open_orders, reason=reason))
    show_fields(context, found)


def busy_accounts(
    context: typer.Context,
    *,
    window: Annotated[int, typer.Option(min=10, max=3_600, help="Seconds, in steps of ten.")] = 300,
    more_than: Annotated[int, typer.Option(min=1, help="Orders placed within them.")] = 100,
) -> None:
    """Show the accounts that placed more orders than that lately, the busiest first."""
    found = call(
        context, lambda exchange: exchange.admin.list_busy_accounts(window_seconds=window, more_than=more_than)
    )
    if settings_of(context).as_json:
        print_json(found)
        return
    out.print(render.busy_accounts_table(found.accounts))
    if found.seen_seconds < window:
        out.print(f"[dim]seen for {found.seen_seconds:.0f} s only: the instance has not run longer[/dim]")


def rebuild(context: typer.Context, symbol: Symbol, *, reason: Reason = "") -> None:
    """Build a book anew from the journal and compare it with the one in use. Exit status 1 if they differed."""
    found = call(context, lambda exchange: exchange.admin.rebuild_order_book(symbol, reason=reason))
    show_fields(context, found)
    if not found.identical:
        raise typer.Exit(EXIT_REFUSED)


def validate(context: typer.Context, symbol: Symbol) -> None:
    """Check every invariant of a book and of the money behind it. Exit status 1 if one does not hold."""
    found = call(context, lambda exchange: exchange.admin.validate_order_book(symbol))
    if settings_of(context).as_json:
        print_json(found)
    else:
        rows = [("holds" if check.holds else "BROKEN", check.name, check.detail) for check in found.checks]
        out.print(render.table(("", "invariant", "found"), rows, title=f"{found.symbol} at {found.sequence:,}"))
    if not found.valid:
        raise typer.Exit(EXIT_REFUSED)


def state(context: typer.Context) -> None:
    """Show sequence and hash of the instance that answers."""
    show_fields(context, call(context, lambda exchange: exchange.admin.engine_state()))


def book(context: typer.Context, symbol: Symbol, *, depth: Annotated[int, typer.Option(min=1, max=5_000)] = 10) -> None:
    """Show a book with its hash and counts."""
    found = call(context, lambda exchange: exchange.admin.book_state(symbol, depth=depth))
    if settings_of(context).as_json:
        print_json(found)
        return
    footer = (
        f"{found.instance} at {found.sequence:,}, {found.mode}, hash {found.book_hash}\n"
        f"{found.bid_order_count:,} bids on {found.bid_level_count:,} levels, {found.ask_order_count:,} asks on "
        f"{found.ask_level_count:,} levels, {found.stop_order_count:,} stops"
    )
    out.print(render.ladder(found.symbol, found.bids, found.asks, footer=footer))


def queue_depth(context: typer.Context) -> None:
    """Show how many commands have arrived and are not durable yet."""
    depth = call(context, lambda exchange: exchange.admin.queue_depth())
    if settings_of(context).as_json:
        print_json({"queue_depth": depth})
    else:
        out.print(depth)


def snapshot(context: typer.Context, *, reason: Reason = "") -> None:
    """Store a snapshot of the state now."""
    show_fields(context, call(context, lambda exchange: exchange.admin.create_snapshot(reason=reason)))


def hand_over(context: typer.Context, *, reason: Reason = "") -> None:
    """Give leadership to another instance, without waiting for anything to fail."""
    found = call(context, lambda exchange: exchange.admin.hand_over(reason=reason))
    if settings_of(context).as_json:
        print_json(found)
    else:
        out.print(
            f"{escape(found.instance)} led up to sequence {found.sequence:,}; `pincex replicas` says who leads now"
        )


def activate_rules(
    context: typer.Context,
    rules_version: Annotated[int, typer.Argument(min=1, help="The version after the one in force.")],
    *,
    reason: Reason = "",
) -> None:
    """Let the next version of the matching rules hold, for good. Refused while an instance does not know it."""
    show_fields(context, call(context, lambda exchange: exchange.admin.activate_rules(rules_version, reason=reason)))


def create_asset(
    context: typer.Context,
    code: Annotated[str, typer.Argument(help="2 to 10 upper-case letters or digits.")],
    decimals: Annotated[int, typer.Argument(min=0, max=12, help="Digits after the point.")],
    *,
    request_id: RequestId = "",
) -> None:
    """Make an asset."""
    show_fields(
        context, call(context, lambda exchange: exchange.admin.create_asset(code, decimals, request_id=request_id))
    )


def create_market(
    context: typer.Context,
    base: Annotated[str, typer.Argument(help="What is traded.")],
    quote: Annotated[str, typer.Argument(help="What pays.")],
    *,
    tick: Annotated[str, typer.Option(help="Step of prices.")],
    lot: Annotated[str, typer.Option(help="Step of quantities.")],
    symbol: Annotated[str, typer.Option(help="Default: base and quote together.")] = "",
    maker_fee_ppm: Annotated[int, typer.Option(min=0)] = 0,
    taker_fee_ppm: Annotated[int, typer.Option(min=0)] = 0,
    price_band_ppm: Annotated[int, typer.Option(min=0, help="0: no band.")] = 0,
    stp: Annotated[str, typer.Option(help="none, cancel_newest, cancel_oldest, cancel_both.")] = "",
    reference_price: Annotated[str | None, typer.Option(help="Bands are measured from it before a trade.")] = None,
    request_id: RequestId = "",
) -> None:
    """Make a market, open at once."""
    found = call(
        context,
        lambda exchange: exchange.admin.create_market(
            base,
            quote,
            tick_size=tick,
            lot_size=lot,
            symbol=symbol,
            default_self_trade_prevention=stp,
            request_id=request_id,
            maker_fee_ppm=maker_fee_ppm,
            taker_fee_ppm=taker_fee_ppm,
            price_band_ppm=price_band_ppm,
            reference_price=reference_price,
        ),
    )
    _show_market(context, found)


def _set_mode(context: typer.Context, symbol: str, mode: str, reason: str, request_id: str) -> None:
    found = call(
        context,
        lambda exchange: exchange.admin.set_market_mode(symbol, mode, reason=reason, request_id=request_id),
    )
    _show_market(context, found)


def _turn(context: typer.Context, switch: str, position: OnOff, reason: str, request_id: str) -> None:
    found = call(
        context,
        lambda exchange: exchange.admin.set_switch(
            switch, on=position is OnOff.ON, reason=reason, request_id=request_id
        ),
    )
    _show_switches(context, found)


def _show_market(context: typer.Context, market: models.Market) -> None:
    if settings_of(context).as_json:
        print_json(market)
    else:
        out.print(render.markets_table([market]))


def _show_switches(context: typer.Context, found: models.Switches) -> None:
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = (
        ("new orders", found.accept_new_orders, not found.accept_new_orders),
        ("maintenance", found.maintenance_mode, found.maintenance_mode),
        ("circuit breaker", found.circuit_breaker, found.circuit_breaker),
    )
    for name, on, alarming in rows:
        position = "on" if on else "off"
        out.print(f"{name:16} [{'bold yellow' if alarming else 'green'}]{position}[/]")


COMMANDS: dict[str, Any] = {
    "halt": halt,
    "cancel-only": cancel_only,
    "resume": resume,
    "circuit-breaker": circuit_breaker,
    "new-orders": new_orders,
    "maintenance": maintenance,
    "switches": switches,
    "mass-cancel": mass_cancel,
    "limits": limits,
    "busy-accounts": busy_accounts,
    "rebuild": rebuild,
    "validate": validate,
    "state": state,
    "book": book,
    "queue-depth": queue_depth,
    "snapshot": snapshot,
    "hand-over": hand_over,
    "activate-rules": activate_rules,
    "create-asset": create_asset,
    "create-market": create_market,
}
