"""`pincex audit`: what was done by whom, and the proof that nobody altered the record, on the ops listener."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from pincex_client.cli import render
from pincex_client.cli.context import EXIT_REFUSED, call, out, print_json, settings_of, usage_error
from pincex_client.cli.spans import span

_KNOWN = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})")


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="The audit trail: who did what, and the proof of it.", no_args_is_help=True)
    group.command("list")(list_records)
    group.command()(verify)
    return group


def list_records(
    context: typer.Context,
    *,
    actor: Annotated[str, typer.Option(help="Only of this user, account or `system`.")] = "",
    action: Annotated[str, typer.Option(help="Only this one, such as account.locked.")] = "",
    request_id: Annotated[str, typer.Option(help="Only of this request.")] = "",
    since: Annotated[str, typer.Option(help="Such as 15m, 12h or 7d.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
) -> None:
    """Show records, the newest first."""
    found = call(
        context,
        lambda exchange: exchange.admin.audit.records(
            actor=actor,
            action=action,
            request_id=request_id,
            from_time=datetime.now(UTC) - span(since) if since else None,
            limit=limit,
        ),
    )
    if settings_of(context).as_json:
        print_json(found)
        return
    columns = ("number", "when", "phase", "action", "who", "with", "from", "outcome", "reason", "request")
    rows = [
        (
            one.sequence,
            render.plain(one.record_time),
            one.phase,
            # Of a method its last two words: the package says nothing more.
            one.action.rpartition(".")[2] if "/" in one.action else one.action,
            one.actor,
            one.credential,
            one.address,
            one.outcome,
            one.reason,
            one.request_id,
        )
        for one in found
    ]
    out.print(render.table(columns, rows))


def verify(
    context: typer.Context,
    *,
    known: Annotated[
        str, typer.Option(help="SEQUENCE:HASH of a head that was written down: it must still be there.")
    ] = "",
) -> None:
    """Compute the whole chain anew. Exit status 1 if a record was altered, removed, put in or moved."""
    settings = settings_of(context)
    given = _KNOWN.fullmatch(known)
    if known and given is None:
        usage_error(settings, "--known is SEQUENCE:HASH, a number and 64 hexadecimal digits in lower case")
    sequence, digest = (int(given[1]), given[2]) if given is not None else (0, "")
    found = call(context, lambda exchange: exchange.admin.audit.verify(known_sequence=sequence, known_hash=digest))
    if settings.as_json:
        print_json(found)
    elif found.intact:
        out.print(f"[green]intact[/green]: {found.record_count:,} records")
        out.print(f"  head  {found.head_sequence}:{found.head_hash}")
    else:
        out.print(f"[bold red]BROKEN[/bold red] at record {found.broken_sequence:,}: {escape(found.problem)}")
        out.print(f"  {found.record_count:,} records before it are as they were written")
    if found.pruned_sequence and not settings.as_json:
        pruned = f"{found.pruned_sequence:,} were pruned, last on {render.plain(found.pruned_time)}"
        out.print(f"  begins behind {found.pruned_sequence}:{found.pruned_hash}; records up to {pruned}")
    if not found.intact:
        raise typer.Exit(EXIT_REFUSED)
