"""`pincex wallet` and `pincex admin wallet`: money in and out."""

from typing import Annotated, Any

import typer

from pincex_client import wallet
from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, show_fields

Asset = Annotated[str, typer.Argument(help="Such as BTC.")]
Amount = Annotated[str, typer.Argument(help="A decimal.")]
Account = Annotated[str, typer.Argument(help="Whose.")]
NetworkName = Annotated[str, typer.Option(help="Default: the asset's first network.")]
OfAsset = Annotated[str, typer.Option(help="Only of this asset.")]
Limit = Annotated[int, typer.Option(min=1, help="So many.")]
WithdrawalId = Annotated[str, typer.Argument(help="As `withdrawals` shows it.")]
RequestId = Annotated[str, typer.Option(help="Makes a repeat harmless; default: a new one.")]
Reason = Annotated[str, typer.Option(help="For the record.")]
RequiredReason = Annotated[str, typer.Option(help="For the record. Required.")]

_WITHDRAWAL_COLUMNS = ("withdrawal", "when", "asset", "amount", "fee", "status", "address", "transaction", "")


def build() -> typer.Typer:
    """Make the group of an account's own commands."""
    group = typer.Typer(help="Deposits, withdrawals and transfers.", no_args_is_help=True)
    own: dict[str, Any] = {
        "networks": networks,
        "address": address,
        "deposits": deposits,
        "withdraw": withdraw,
        "withdrawals": withdrawals,
        "cancel": cancel,
        "limits": limits,
        "transfer": transfer,
        "transfers": transfers,
    }
    for name, command in own.items():
        group.command(name)(command)
    listed = typer.Typer(help="Addresses that withdrawals may go to.", no_args_is_help=True)
    listed.command("add")(add_address)
    listed.command("list")(list_addresses)
    listed.command("remove")(remove_address)
    group.add_typer(listed, name="addresses")
    return group


def add_to(group: typer.Typer) -> None:
    """Add the group `wallet` to `pincex admin`."""
    sub = typer.Typer(help="Withdrawals that wait, stops and freezes, the simulated network.", no_args_is_help=True)
    for name, command in COMMANDS.items():
        sub.command(name)(command)
    group.add_typer(sub, name="wallet")


# --- Of an account -------------------------------------------------------------------------------------------------


def networks(context: typer.Context) -> None:
    """Show which assets go over which networks, with fees and least amounts."""
    found = call(context, lambda exchange: exchange.wallet.networks())
    _table(
        context,
        found,
        ("asset", "network", "confirmations", "withdrawal fee", "least withdrawal", "withdrawals"),
        [
            (
                one.asset,
                one.network,
                one.required_confirmations,
                one.withdrawal_fee,
                one.least_withdrawal,
                "open" if one.withdrawals_open else "stopped",
            )
            for one in found
        ],
    )


def address(context: typer.Context, asset: Asset, *, network: NetworkName = "") -> None:
    """Show where you deposit an asset."""
    found = call(context, lambda exchange: exchange.wallet.deposit_address(asset, network=network))
    if settings_of(context).as_json:
        print_json(found)
    else:
        # Alone on its line: to be copied.
        out.print(found.address, soft_wrap=True)


def deposits(context: typer.Context, *, asset: OfAsset = "", limit: Limit = 50) -> None:
    """Show deposits, the newest first."""
    found = call(context, lambda exchange: exchange.wallet.deposits(asset=asset, limit=limit))
    _table(
        context,
        found,
        ("deposit", "when", "asset", "amount", "status", "confirmations", "transaction"),
        [
            (
                one.deposit_id,
                render.plain(one.seen_time),
                one.asset,
                one.amount,
                one.status,
                f"{one.confirmations}/{one.required_confirmations}",
                one.transaction_id,
            )
            for one in found
        ],
    )


def withdraw(
    context: typer.Context,
    asset: Asset,
    amount: Annotated[str, typer.Argument(help="What arrives; the fee comes on top.")],
    to_address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of your list: `addresses add`.")],
    *,
    network: NetworkName = "",
    request_id: RequestId = "",
) -> None:
    """Ask for a withdrawal to an address of your list."""
    show_fields(
        context,
        call(
            context,
            lambda exchange: exchange.wallet.withdraw(
                asset, amount, to_address, network=network, request_id=request_id
            ),
        ),
    )


def withdrawals(context: typer.Context, *, asset: OfAsset = "", limit: Limit = 50) -> None:
    """Show withdrawals, the newest first."""
    found = call(context, lambda exchange: exchange.wallet.withdrawals(asset=asset, limit=limit))
    _table(context, found, _WITHDRAWAL_COLUMNS, [_withdrawal_row(one) for one in found])


def cancel(context: typer.Context, withdrawal_id: WithdrawalId) -> None:
    """Cancel a withdrawal that was not handed to the network yet."""
    show_fields(context, call(context, lambda exchange: exchange.wallet.cancel_withdrawal(withdrawal_id)))


def add_address(
    context: typer.Context,
    asset: Asset,
    new_address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where withdrawals may go.")],
    label: Annotated[str, typer.Argument(help="What you call it.")],
    *,
    network: NetworkName = "",
) -> None:
    """List an address for withdrawals; it is usable after a cooling-off time."""
    show_fields(
        context,
        call(context, lambda exchange: exchange.wallet.add_address(asset, new_address, label, network=network)),
    )


def list_addresses(context: typer.Context) -> None:
    """Show the addresses that withdrawals may go to."""
    found = call(context, lambda exchange: exchange.wallet.addresses())
    _table(
        context,
        found,
        ("id", "asset", "network", "label", "address", "usable from"),
        [
            (one.address_id, one.asset, one.network, one.label, one.address, render.plain(one.usable_time))
            for one in found
        ],
    )


def remove_address(
    context: typer.Context, address_id: Annotated[str, typer.Argument(help="As `addresses list` shows it.")]
) -> None:
    """Take an address off the list."""
    call(context, lambda exchange: exchange.wallet.remove_address(address_id))
    if settings_of(context).as_json:
        print_json({"removed": address_id})
    else:
        out.print(f"{address_id} is off the list")


def limits(context: typer.Context) -> None:
    """Show what you may withdraw within 24 hours, and how much of it is used."""
    found = call(context, lambda exchange: exchange.wallet.limits())
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = [(one.asset, one.daily_limit, one.used, one.left) for one in found.limits]
    out.print(f"KYC tier {found.kyc_tier}")
    out.print(render.table(("asset", "in 24 hours", "used", "left"), rows))
    if found.frozen:
        out.print("[bold yellow]this account is frozen: nothing goes out[/]")
    if found.withdrawals_stopped:
        out.print("[bold yellow]withdrawals are stopped[/]")


def transfer(
    context: typer.Context,
    to_account: Annotated[str, typer.Argument(help="An account of the exchange.")],
    asset: Asset,
    amount: Amount,
    *,
    request_id: RequestId = "",
) -> None:
    """Send money to another account of the exchange."""
    show_fields(
        context,
        call(context, lambda exchange: exchange.wallet.transfer(to_account, asset, amount, request_id=request_id)),
    )


def transfers(context: typer.Context, *, limit: Limit = 50) -> None:
    """Show transfers that you sent and received, the newest first."""
    found = call(context, lambda exchange: exchange.wallet.transfers(limit=limit))
    _table(
        context,
        found,
        ("transfer", "when", "from", "to", "asset", "amount"),
        [
            (
                one.transfer_id,
                render.plain(one.created_time),
                one.account,
                one.to_account,
                one.asset,
                one.amount,
            )
            for one in found
        ],
    )


# --- Operating -----------------------------------------------------------------------------------------------------


def status(context: typer.Context) -> None:
    """Show what is under way, what the networks have, and whether withdrawals go out."""
    _show_status(context, call(context, lambda exchange: exchange.admin.wallet.status()))


def pending(
    context: typer.Context,
    *,
    under_way: Annotated[bool, typer.Option(help="All that have not come to their end.")] = False,
    limit: Limit = 50,
) -> None:
    """Show withdrawals that wait for an operator, the oldest first."""
    found = call(context, lambda exchange: exchange.admin.wallet.pending(under_way=under_way, limit=limit))
    rows = [(one.account, *_withdrawal_row(one)) for one in found]
    _table(context, found, ("account", *_WITHDRAWAL_COLUMNS), rows)


def approve(context: typer.Context, withdrawal_id: WithdrawalId, *, reason: Reason = "") -> None:
    """Let a withdrawal go out that another asked for."""
    show_fields(context, call(context, lambda exchange: exchange.admin.wallet.approve(withdrawal_id, reason=reason)))


def reject(context: typer.Context, withdrawal_id: WithdrawalId, *, reason: RequiredReason) -> None:
    """Refuse a withdrawal; its money becomes available again."""
    show_fields(context, call(context, lambda exchange: exchange.admin.wallet.reject(withdrawal_id, reason=reason)))


def stop(context: typer.Context, *, reason: RequiredReason) -> None:
    """Let nothing go out any more, until resumed."""
    _show_status(context, call(context, lambda exchange: exchange.admin.wallet.stop(reason=reason)))


def resume(context: typer.Context, *, reason: RequiredReason) -> None:
    """Lift the operator's stop."""
    _show_status(context, call(context, lambda exchange: exchange.admin.wallet.resume(reason=reason)))


def freeze(context: typer.Context, account: Account, *, reason: RequiredReason) -> None:
    """Let nothing go out of an account."""
    show_fields(context, call(context, lambda exchange: exchange.admin.wallet.freeze(account, reason=reason)))


def thaw(context: typer.Context, account: Account, *, reason: RequiredReason) -> None:
    """Lift a freeze."""
    show_fields(context, call(context, lambda exchange: exchange.admin.wallet.thaw(account, reason=reason)))


def simulate_deposit(
    context: typer.Context,
    account: Account,
    asset: Asset,
    amount: Amount,
    *,
    transaction_id: Annotated[str, typer.Option(help="Makes a repeat harmless; default: a new one.")] = "",
) -> None:
    """Make a deposit appear on the simulated network."""
    found = call(
        context,
        lambda exchange: exchange.admin.wallet.simulate_deposit(
            asset, amount, account=account, transaction_id=transaction_id
        ),
    )
    if settings_of(context).as_json:
        print_json({"transaction_id": found})
    else:
        out.print(found)


def simulate_reorg(
    context: typer.Context, transaction_id: Annotated[str, typer.Argument(help="As `deposits` shows it.")]
) -> None:
    """Make a transaction disappear from the simulated network."""
    call(context, lambda exchange: exchange.admin.wallet.simulate_reorg(transaction_id))
    if settings_of(context).as_json:
        print_json({"transaction_id": transaction_id})
    else:
        out.print(f"{transaction_id} is gone")


COMMANDS: dict[str, Any] = {
    "status": status,
    "pending": pending,
    "approve": approve,
    "reject": reject,
    "stop": stop,
    "resume": resume,
    "freeze": freeze,
    "thaw": thaw,
    "simulate-deposit": simulate_deposit,
    "simulate-reorg": simulate_reorg,
}


def _withdrawal_row(one: wallet.Withdrawal) -> tuple[Any, ...]:
    return (
        one.withdrawal_id,
        render.plain(one.created_time),
        one.asset,
        one.amount,
        one.fee,
        one.status,
        one.address,
        one.transaction_id,
        one.problem,
    )


def _show_status(context: typer.Context, found: wallet.WalletStatus) -> None:
    if settings_of(context).as_json:
        print_json(found)
        return
    state = "[bold red]stopped[/]" if found.withdrawals_stopped else "[green]go out[/green]"
    out.print(f"withdrawals {state}; frozen accounts: {found.frozen_accounts}")
    if found.problem:
        out.print(found.problem, markup=False)
    rows: list[tuple[Any, ...]] = [(one.state, one.count, render.plain(one.oldest_time)) for one in found.states]
    out.print(render.table(("state", "count", "oldest"), rows))
    rows = [(one.network, one.asset, one.amount) for one in found.custody]
    out.print(render.table(("network", "asset", "custody"), rows))


def _table(context: typer.Context, found: Any, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if settings_of(context).as_json:
        print_json(found)
    else:
        out.print(render.table(columns, rows))
