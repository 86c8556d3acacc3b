"""`pincex replicas`: all instances of the trading engine side by side, on the ops listener."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from pincex_client.cli import render
from pincex_client.cli.context import EXIT_REFUSED, call, err, out, print_json, settings_of
from pincex_client.models import ReplicaComparison

# Enough of a SHA-256 to tell two apart by eye.
SHOWN_DIGITS = 16


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replicas)


def replicas(
    context: typer.Context,
    *,
    symbol: Annotated[str, typer.Option(help="Compare this market's book too.")] = "",
) -> None:
    """Compare the state of all instances at one sequence. Exit status 1 if two that answered differ."""
    found = call(context, lambda exchange: exchange.admin.compare_replicas(symbol))
    if settings_of(context).as_json:
        print_json(found)
    else:
        _show(found)
    for one in found.replicas:
        if not one.state_hash:
            err.print(f"[yellow]no answer[/yellow] from {escape(one.instance)}: it was not compared")
    if not found.identical:
        err.print(f"[bold red]the instances DIFFER[/bold red] at sequence {found.sequence:,}")
        raise typer.Exit(EXIT_REFUSED)


def _show(found: ReplicaComparison) -> None:
    columns = ("instance", "role", "sequence", "state hash", "book hash", "version", "core", "rules")
    rows = [
        (
            one.instance,
            one.role,
            one.sequence,
            one.state_hash[:SHOWN_DIGITS] or Text("no answer", style="yellow"),
            one.book_hash[:SHOWN_DIGITS],
            one.version,
            one.core_mode,
            one.supported_rules_version,
        )
        for one in found.replicas
    ]
    out.print(render.table(columns, rows, title=f"hashes at sequence {found.sequence:,}"))
