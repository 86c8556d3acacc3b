"""`pincex journal`: proving the record, on the ops listener."""

from contextlib import aclosing
from typing import Annotated

import typer
from rich.markup import escape

from pincex_client.cli.context import EXIT_REFUSED, call, err, out, print_json, settings_of, usage_error
from pincex_client.client import ExchangeClient
from pincex_client.models import JournalVerification


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="The journal: every command and what came of it.", no_args_is_help=True)
    # One command alone would become the group itself: the callback keeps `verify` a word of its own.
    group.callback()(_journal)
    group.command()(verify)
    return group


def _journal() -> None:
    """The journal: every command and what came of it."""


def verify(
    context: typer.Context,
    *,
    from_sequence: Annotated[
        int, typer.Option("--from", min=0, help="The first sequence; 0: the oldest that is retained.")
    ] = 0,
    to_sequence: Annotated[int, typer.Option("--to", min=0, help="The last sequence; 0: the head.")] = 0,
) -> None:
    """Verify the hash chain, and that a replay gives what is stored. Exit status 1 if not; progress goes to stderr."""
    settings = settings_of(context)
    if 0 < to_sequence < from_sequence:
        usage_error(settings, "--to lies before --from")
    found = call(context, lambda exchange: _verify(exchange, from_sequence, to_sequence, quiet=settings.as_json))
    if settings.as_json:
        print_json(found)
    elif found.valid:
        out.print(f"[green]valid[/green] up to sequence {found.sequence:,}: {_counts(found)}")
        out.print(f"  frame hash  {found.frame_hash}\n  state hash  {found.state_hash}")
    else:
        out.print(f"[bold red]NOT VALID[/bold red]: {escape(found.difference)}")
        out.print(f"  good up to sequence {found.sequence:,}: {_counts(found)}")
    if not found.valid:
        raise typer.Exit(EXIT_REFUSED)


async def _verify(
    exchange: ExchangeClient, from_sequence: int, to_sequence: int, *, quiet: bool
) -> JournalVerification:
    """The result; its progress goes to stderr, a line each, unless `quiet`."""
    async with aclosing(exchange.admin.verify_journal(from_sequence, to_sequence)) as steps:
        async for progress in steps:
            if not (quiet or progress.done):
                err.print(f"verified up to {progress.sequence:,} of {progress.to_sequence:,}")
    # The last one: the SDK raises where there is no result.
    return progress


def _counts(found: JournalVerification) -> str:
    return f"{found.frame_count:,} frames, {found.command_count:,} commands, {found.snapshot_count:,} snapshots"
