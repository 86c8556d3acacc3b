"""`pincex kyc` and `pincex admin kyc`: who users are."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pincex_client import kyc
from pincex_client.cli import render
from pincex_client.cli.context import call, confirm, out, print_json, settings_of, show_fields, usage_error

CaseId = Annotated[str, typer.Argument(help="As `cases` shows it.")]
UserId = Annotated[str, typer.Argument(help="Such as 100001.")]
Told = Annotated[str, typer.Option("--reason", help="Told to the user. Required.")]


def build() -> typer.Typer:
    """Make the group of users' own commands."""
    group = typer.Typer(help="Who you are, and what your tier lets you do.", no_args_is_help=True)
    group.command("status")(status)
    group.command("tiers")(tiers)
    group.command("submit")(submit)
    return group


def add_to(group: typer.Typer) -> None:
    """Add the group `kyc` to `pincex admin`."""
    sub = typer.Typer(help="The review of KYC cases. Each look at personal data is on record.", no_args_is_help=True)
    commands = (("cases", cases), ("show", show), ("approve", approve), ("reject", reject), ("ask", ask))
    for name, command in (*commands, ("tier", user_tier), ("erase", erase)):
        sub.command(name)(command)
    group.add_typer(sub, name="kyc")


# --- Of a user -----------------------------------------------------------------------------------------------------


def status(context: typer.Context) -> None:
    """Show your tier, and where your case stands."""
    show_fields(context, call(context, lambda exchange: exchange.kyc.status()))


def tiers(context: typer.Context) -> None:
    """Show what each tier lets a user do."""
    found = call(context, lambda exchange: exchange.kyc.tiers())
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = [
        (
            one.tier,
            ", ".join(f"{render.amount(amount)} {asset}" for asset, amount in one.daily_withdrawals.items()) or "none",
            one.trading_tier,
            f"{one.valid_days} days" if one.valid_days else "",
        )
        for one in found
    ]
    out.print(render.table(("tier", "withdrawals in 24 hours", "trading limits", "valid for"), rows))


def submit(
    context: typer.Context,
    tier: Annotated[int, typer.Argument(help="1 or 2.")],
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="JSON with full_name, birth_date, country, street_address, city, postal_code and, for tier 2, "
            "document_number; - is standard input. Without it each is asked for.",
        ),
    ] = None,
    request_id: Annotated[str, typer.Option(help="Makes a repeat harmless; default: a new one.")] = "",
) -> None:
    """Ask for a tier, or answer what a reviewer asked. Data about you are no options: those show in the list of processes."""
    data = _asked(context, tier) if file is None else _read(context, file)
    show_fields(context, call(context, lambda exchange: exchange.kyc.submit(tier, data, request_id=request_id)))


def _asked(context: typer.Context, tier: int) -> kyc.PersonalData:
    if not sys.stdin.isatty():
        usage_error(settings_of(context), "no terminal to ask: give --file, which may be - for standard input")
    questions = {
        "full_name": "Full name",
        "birth_date": "Birth date (1990-01-31)",
        "country": "Country (two letters)",
        "street_address": "Street and number",
        "city": "City",
        "postal_code": "Postal code",
    }
    answers = {name: typer.prompt(text, default="", show_default=False) for name, text in questions.items()}
    if tier > 1:
        answers["document_number"] = typer.prompt("Number of passport or identity card", default="", show_default=False)
    return kyc.PersonalData(**answers)


def _read(context: typer.Context, file: Path) -> kyc.PersonalData:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = json.loads(text)
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise TypeError
        return kyc.PersonalData(**found)
    except OSError as error:
        usage_error(settings_of(context), f"{file}: {error.strerror}")
    except (ValueError, TypeError):
        # Without what it says: that is about a person.
        names = ", ".join(kyc.PersonalData.__dataclass_fields__)
        usage_error(settings_of(context), f"{file} is no JSON object of texts named {names}")


# --- Of a reviewer -------------------------------------------------------------------------------------------------


def cases(
    context: typer.Context,
    *,
    status: Annotated[
        str, typer.Option(help="SUBMITTED, IN_REVIEW, MORE_NEEDED, APPROVED, REJECTED or EXPIRED.")
    ] = "IN_REVIEW",
    limit: Annotated[int, typer.Option(min=1, help="The oldest so many.")] = 50,
) -> None:
    """Show cases, the oldest first, without personal data."""
    found = call(context, lambda exchange: exchange.admin.kyc.cases(status=status, limit=limit))
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = [
        (
            one.case_id,
            one.user_id,
            f"tier {one.requested_tier}",
            one.status,
            render.plain(one.submitted_time),
            "; ".join(one.screening_hits),
            one.decided_by,
            render.plain(one.expire_time),
        )
        for one in found
    ]
    out.print(
        render.table(("case", "user", "asks for", "status", "submitted", "screening", "decided by", "expires"), rows)
    )


def show(context: typer.Context, case_id: CaseId) -> None:
    """Show one case with personal data. The look is on record."""
    found = call(context, lambda exchange: exchange.admin.kyc.case(case_id))
    if settings_of(context).as_json:
        print_json(found)
        return
    show_fields(context, found.case)
    if found.data is not None:
        show_fields(context, found.data)


def approve(
    context: typer.Context,
    case_id: CaseId,
    *,
    reason: Annotated[str, typer.Option(help="Required where the screening found something.")] = "",
) -> None:
    """Give the tier that was asked for."""
    show_fields(context, call(context, lambda exchange: exchange.admin.kyc.approve(case_id, reason=reason)))


def reject(context: typer.Context, case_id: CaseId, *, reason: Told) -> None:
    """Refuse a case."""
    show_fields(context, call(context, lambda exchange: exchange.admin.kyc.reject(case_id, reason=reason)))


def ask(context: typer.Context, case_id: CaseId, *, reason: Told) -> None:
    """Send a case back to the user with a question."""
    show_fields(context, call(context, lambda exchange: exchange.admin.kyc.ask(case_id, reason=reason)))


def user_tier(context: typer.Context, user_id: UserId) -> None:
    """Show the tier of a user, and how it came to be."""
    found = call(context, lambda exchange: exchange.admin.kyc.user_tier(user_id))
    if settings_of(context).as_json:
        print_json(found)
        return
    until = f" until {render.plain(found.expire_time)}" if found.expire_time else ""
    out.print(f"user {found.user_id}: tier {found.tier}{until}")
    rows = [(render.plain(one.change_time), f"tier {one.tier}", one.cause, one.case_id) for one in found.changes]
    out.print(render.table(("when", "to", "because", "case"), rows))


def erase(
    context: typer.Context,
    user_id: UserId,
    *,
    reason: Annotated[str, typer.Option(help="For the record, which stays: without personal data. Required.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make a user's personal data unreadable for good. Decisions, tiers and the ledger stay."""
    confirm(context, f"Erase all personal data of user {user_id}? It cannot be taken back.", yes=yes)
    call(context, lambda exchange: exchange.admin.kyc.erase(user_id, reason=reason))
    if not settings_of(context).as_json:
        out.print(f"the personal data of user {user_id} is erased")
