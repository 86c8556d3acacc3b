"""`pincex db`: back the database up, prove that a backup can be restored, and build candles anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from exchange.stack import view
from exchange.stack.config import load_config
from exchange.stack.control import NotRunning, request
from exchange.stack.errors import StackError

app = typer.Typer(
    help="Back the database up, prove that a backup can be restored, build candles anew.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The dump; what it must hold stands in FILE.json.")]
Url = Annotated[
    str, typer.Option("--database-url", help="As the tables' owner; default: the running stack's, else the settings'.")
]


@app.command()
def backup(file: File, *, database_url: Url = "") -> None:
    """Dump the database as it is at one moment, while the exchange goes on, and write down what it holds."""
    # Its driver is loaded by who needs it: all other commands start faster.
    from exchange.stack.postgresql import backup as backups  # noqa: PLC0415

    try:
        found = backups.backup(database_url or _admin_url(), file)
    except StackError as error:
        _fail(str(error))
    rows = sum(content.rows for content in found.values())
    view.say(f"wrote {file} and {file}.json: {rows:,} rows in {len(found)} tables")


@app.command()
def verify(file: File, *, database_url: Url = "") -> None:
    """Restore a backup into a database made for it, compare, and drop that. Exit status 1 if anything differs."""
    from exchange.stack.postgresql import backup as backups  # noqa: PLC0415 - see above

    try:
        differences = backups.verify(database_url or _admin_url(), file)
    except StackError as error:
        _fail(str(error))
    for difference in differences:
        view.error(difference)
    if differences:
        raise typer.Exit(1)
    view.say(f"{file} restores to what it was: all rows of all tables")


@app.command()
def restore(
    file: File,
    database: Annotated[str, typer.Argument(metavar="DATABASE", help="The name of the database that is made.")],
    *,
    tail: Annotated[
        bool, typer.Option("--tail", help="Add what the journal has got since, from the exchange's database.")
    ] = False,
    tail_from: Annotated[
        str, typer.Option("--tail-from", metavar="URL", help="The same from a database elsewhere, such as a standby.")
    ] = "",
    database_url: Url = "",
) -> None:
    """Make a database from a backup, beside the exchange's own; with --tail it has all that the engine did until now."""
    from exchange.stack.postgresql import restore as restoring  # noqa: PLC0415 - see above

    try:
        url = database_url or _admin_url()
        found = restoring.restore(url, file, database, tail_url=tail_from or (url if tail else ""))
    except StackError as error:
        _fail(str(error))
    view.say(
        f"made {database} from {file}: the journal to sequence {found.sequence:,}, of which the backup had "
        f"{found.backup_sequence:,}"
    )


@app.command(name="rebuild-candles")
def rebuild_candles(*, database_url: Url = "") -> None:
    """Build all candles anew from the trades, where market data cannot go on from those that are there."""
    from exchange.stack.postgresql import candles  # noqa: PLC0415 - see above

    try:
        count, sequence = candles.rebuild(database_url or _admin_url())
    except StackError as error:
        _fail(str(error))
    view.say(
        f"built {count:,} candles from the trades to sequence {sequence:,}; market data goes on from there by itself"
    )


def _admin_url() -> str:
    """Of the running stack, which knows where its database is, else of the settings. Raises StackError."""
    config = load_config(os.environ, Path.cwd())
    try:
        url = request(config.home, "status").get("admin_database_url")
    except NotRunning:
        url = config.admin_database_url
    if not url:
        raise StackError(
            "no database: the exchange does not run, or runs with --memory, and PINCEX_ADMIN_DATABASE_URL is not set"
        )
    return str(url)


def _fail(text: str) -> NoReturn:
    view.error(text)
    raise typer.Exit(1)
