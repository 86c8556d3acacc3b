"""`pincex statement`, `pincex fees`, `pincex ledger` and `pincex admin settlement`: the books."""

import sys
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pincex_client import ledger
from pincex_client.cli import render
from pincex_client.cli.context import EXIT_REFUSED, call, out, print_json, settings_of, show_fields
from pincex_client.cli.moments import moment
from pincex_client.client import ExchangeClient

Account = Annotated[str, typer.Argument(help="A user's account, '$fees', '$suspense' or custody:WHERE.")]
Asset = Annotated[str, typer.Argument(help="Such as USD.")]
CorrectionId = Annotated[str, typer.Argument(help="As `corrections` shows it.")]
Reason = Annotated[str, typer.Option(help="For the record.")]
RequiredReason = Annotated[str, typer.Option(help="For the record. Required.")]
Limit = Annotated[int, typer.Option(min=1, help="The newest so many.")]
From = Annotated[str, typer.Option("--from", help="From this time on, such as 2026-01-31 or 2026-01-31T12:00:00Z.")]
To = Annotated[str, typer.Option("--to", help="Before this time.")]


def register(app: typer.Typer) -> None:
    """Add the commands of a trader, and the group `ledger`."""
    app.command()(statement)
    app.command()(fees)
    group = typer.Typer(help="The ledger: every balance explained, on the ops listener.", no_args_is_help=True)
    group.command("account")(show_account)
    group.command("postings")(list_postings)
    app.add_typer(group, name="ledger")


def add_to(group: typer.Typer) -> None:
    """Add the group `settlement` to `pincex admin`."""
    sub = typer.Typer(help="The books: do they agree, and how they are put right.", no_args_is_help=True)
    for name, command in COMMANDS.items():
        # So -5 is an amount, not an option.
        sub.command(name, context_settings={"ignore_unknown_options": True})(command)
    group.add_typer(sub, name="settlement")


# --- Of a trader ---------------------------------------------------------------------------------------------------


def statement(
    context: typer.Context,
    asset: Asset,
    *,
    from_text: From = "",
    to_text: To = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="A CSV file on standard output.")] = False,
) -> None:
    """Show all that changed what you own of an asset, with opening and closing balance."""
    start, end = moment(context, from_text), moment(context, to_text)
    if as_csv:

        async def write(exchange: ExchangeClient) -> None:
            async for part in exchange.statements.csv_parts(asset, from_time=start, to_time=end):
                sys.stdout.write(part.decode())

        call(context, write)
        return
    found = call(context, lambda exchange: exchange.statements.get(asset, from_time=start, to_time=end))
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = [
        (render.plain(one.line_time), one.cause, one.reference, _number(one.amount), _number(one.balance))
        for one in found.lines
    ]
    out.print(f"{escape(found.account)} {escape(found.asset)}: opening balance {_number(found.opening_balance)}")
    out.print(render.table(("when", "cause", "reference", "amount", "balance"), rows))
    out.print(f"change {_number(found.change)}, closing balance {_number(found.closing_balance)}")


def fees(context: typer.Context, *, from_text: From = "", to_text: To = "") -> None:
    """Show the fees that you paid, by market and role."""
    start, end = moment(context, from_text), moment(context, to_text)
    found = call(context, lambda exchange: exchange.statements.fees(from_time=start, to_time=end))
    _table(
        context,
        found,
        found.lines,
        ("market", "role", "trades", "traded", "fees", ""),
        lambda one: (
            one.symbol,
            one.role,
            one.trade_count,
            _number(one.notional),
            _number(one.fees),
            one.asset,
        ),
    )


# --- The ledger ----------------------------------------------------------------------------------------------------


def show_account(context: typer.Context, account: Account) -> None:
    """Show what stands on an account."""
    found = call(context, lambda exchange: exchange.admin.settlement.account(account))
    _table(
        context,
        found,
        found.balances,
        ("asset", "kind", "amount"),
        lambda one: (one.asset, one.kind, _number(one.amount)),
    )
    if not settings_of(context).as_json:
        out.print(f"as of sequence {found.sequence}")


def list_postings(
    context: typer.Context,
    account: Account,
    *,
    asset: Annotated[str, typer.Option(help="Only of this asset.")] = "",
    limit: Limit = 50,
) -> None:
    """Show the lines that made up an account's balances, the newest first."""
    found = call(context, lambda exchange: exchange.admin.settlement.postings(account, asset=asset, limit=limit))
    _table(
        context,
        found,
        found,
        ("posting", "sequence", "when", "asset", "kind", "cause", "reference", "amount", "balance"),
        lambda one: (
            one.posting_id,
            one.sequence or "-",
            render.plain(one.posting_time),
            one.asset,
            one.kind,
            one.cause,
            one.reference,
            _number(one.amount),
            _number(one.balance_after),
        ),
    )


# --- Operating -----------------------------------------------------------------------------------------------------


def status(context: typer.Context) -> None:
    """Show how far settlement is, and whether withdrawals are stopped."""
    show_fields(context, call(context, lambda exchange: exchange.admin.settlement.status()))


def reconcile(context: typer.Context, *, reason: Reason = "") -> None:
    """Compare engine and ledger now. Exit status 1 if they do not agree."""
    found = call(context, lambda exchange: exchange.admin.settlement.reconcile(reason=reason))
    if settings_of(context).as_json:
        print_json(found)
    else:
        compared = f"{found.compared_balances:,} balances of {found.compared_accounts:,} accounts"
        verdict = "[green]whole[/green]" if found.whole else "[bold red]BROKEN[/bold red]"
        out.print(f"{verdict} at sequence {found.sequence}: {compared} in {found.seconds:.2f} s")
        if found.breaks:
            out.print(_breaks(found.breaks))
    if not found.whole:
        raise typer.Exit(EXIT_REFUSED)


def incidents(
    context: typer.Context,
    *,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that stop withdrawals now.")] = False,
    limit: Limit = 50,
) -> None:
    """Show breaks on record, the newest first."""
    found = call(context, lambda exchange: exchange.admin.settlement.incidents(open_only=open_only, limit=limit))
    _table(
        context,
        found,
        found,
        ("incident", "opened", "sequence", "breaks", "resolved", "by", "resolution"),
        lambda one: (
            one.incident_id,
            render.plain(one.opened_time),
            one.sequence,
            "; ".join(f"{each.kind} {each.account} {each.asset}" for each in one.breaks),
            render.plain(one.resolved_time) if one.resolved_time else "open",
            one.resolved_by,
            one.resolution,
        ),
    )


def resolve(
    context: typer.Context,
    incident_id: Annotated[str, typer.Argument(help="As `incidents` shows it.")],
    *,
    reason: RequiredReason,
) -> None:
    """Close an incident, once a comparison after it was whole."""
    _show(
        context, call(context, lambda exchange: exchange.admin.settlement.resolve_incident(incident_id, reason=reason))
    )


def corrections(context: typer.Context, *, limit: Limit = 50) -> None:
    """Show corrections, the newest first."""
    found = call(context, lambda exchange: exchange.admin.settlement.corrections(limit=limit))
    _table(
        context,
        found,
        found,
        ("correction", "account", "asset", "amount", "status", "proposed by", "decided by", "sequence", "reason", ""),
        lambda one: (
            one.correction_id,
            one.account,
            one.asset,
            _number(one.amount),
            one.status,
            one.proposed_by,
            one.decided_by,
            one.sequence or "",
            one.reason,
            one.problem,
        ),
    )


def propose(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="A user's account.")],
    asset: Asset,
    amount: Annotated[str, typer.Argument(help="Given to the account; with a minus, taken from it.")],
    *,
    reason: RequiredReason,
    request_id: Annotated[str, typer.Option(help="Makes a repeat harmless; default: a new one.")] = "",
) -> None:
    """Propose a correction between an account and $suspense; another must approve it."""
    show_fields(
        context,
        call(
            context,
            lambda exchange: exchange.admin.settlement.propose_correction(
                account, asset, amount, reason=reason, request_id=request_id
            ),
        ),
    )


def approve(context: typer.Context, correction_id: CorrectionId, *, reason: Reason = "") -> None:
    """Have a correction carried out that another proposed."""
    show_fields(
        context,
        call(context, lambda exchange: exchange.admin.settlement.approve_correction(correction_id, reason=reason)),
    )


def reject(context: typer.Context, correction_id: CorrectionId, *, reason: RequiredReason) -> None:
    """Refuse a correction."""
    show_fields(
        context,
        call(context, lambda exchange: exchange.admin.settlement.reject_correction(correction_id, reason=reason)),
    )


COMMANDS: dict[str, Any] = {
    "status": status,
    "reconcile": reconcile,
    "incidents": incidents,
    "resolve": resolve,
    "corrections": corrections,
    "propose": propose,
    "approve": approve,
    "reject": reject,
}


def _show(context: typer.Context, found: ledger.Incident) -> None:
    if settings_of(context).as_json:
        print_json(found)
        return
    out.print(f"incident {found.incident_id} is closed: {escape(found.resolution)} ({escape(found.resolved_by)})")


def _breaks(breaks: tuple[ledger.Break, ...]) -> Table:
    rows = [(one.kind, one.account, one.asset, one.engine_amount, one.ledger_amount) for one in breaks]
    return render.table(("break", "account", "asset", "engine", "ledger"), rows)


def _table(context: typer.Context, found: Any, lines: Any, columns: tuple[str, ...], row: Any) -> None:
    if settings_of(context).as_json:
        print_json(found)
    else:
        out.print(render.table(columns, [row(one) for one in lines]))


def _number(amount: Decimal) -> str:
    """Without an exponent."""
    return format(amount, "f")
