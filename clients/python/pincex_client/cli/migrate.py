"""`pincex migrate`: the database migrations of the server package, where it is installed."""

import importlib
import os
from typing import Annotated, Any

import typer
from rich.markup import escape

from pincex_client.cli import render, target
from pincex_client.cli.context import EXIT_REFUSED, EXIT_USAGE, err, out, print_json, settings_of

Url = Annotated[
    str | None,
    typer.Option(
        help="Default: PINCEX_ADMIN_DATABASE_URL, DATABASE_URL, else the running stack's.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="Database migrations: run what is pending, or show what is there.", no_args_is_help=True)
    group.command()(run)
    group.command()(info)
    return group


def run(context: typer.Context, *, database_url: Url = None, as_json: Json = False) -> None:
    """Apply what is pending."""
    rows = _call("run", database_url)
    if as_json or settings_of(context).as_json:
        print_json({"applied": [_row(row) for row in rows]})
    elif rows:
        out.print(_table(rows))
    else:
        out.print("nothing to apply")


def info(context: typer.Context, *, database_url: Url = None, as_json: Json = False) -> None:
    """Show every migration and whether it has been applied."""
    rows = _call("info", database_url)
    if as_json or settings_of(context).as_json:
        print_json({"migrations": [_row(row) for row in rows]})
    else:
        out.print(_table(rows) if rows else "no migrations")


def _call(action: str, database_url: str | None) -> list[Any]:
    try:
        module = importlib.import_module("exchange.runtime.migrate")
    except ModuleNotFoundError as error:
        err.print(f"[red]migrate[/red]: needs the server package: {escape(str(error))}")
        raise typer.Exit(EXIT_USAGE) from None
    try:
        rows: list[Any] = getattr(module, action)(module.database_url(_url(database_url)))
    except module.MigrationError as error:
        err.print(f"[red]migrate[/red]: {escape(str(error))}")
        raise typer.Exit(EXIT_REFUSED) from None
    return rows


def _url(given: str | None) -> str | None:
    if given or os.environ.get("PINCEX_ADMIN_DATABASE_URL") or os.environ.get("DATABASE_URL"):
        return given
    found = target.stack_status().get("admin_database_url")
    return found if isinstance(found, str) else None


def _row(row: Any) -> dict[str, Any]:
    return {"service": row.service, "migration": row.migration, "state": row.state, "applied_at": row.applied_at}


def _table(rows: list[Any]) -> Any:
    cells = [(row.service, row.migration, row.state, row.applied_at) for row in rows]
    return render.table(("service", "migration", "state", "applied (UTC)"), cells)
