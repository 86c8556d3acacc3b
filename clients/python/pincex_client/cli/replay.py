"""`pincex replay`: plays a recorded order flow and compares what the exchange made of it."""

import time
import uuid
from contextlib import ExitStack
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pincex_client.cli import target
from pincex_client.cli.context import (
    EXIT_REFUSED,
    Settings,
    err,
    out,
    print_json,
    run,
    settings_of,
    to_json,
    usage_error,
)
from pincex_client.client import ExchangeClient
from pincex_client.replay.flow import FlowError, read_book, read_commands, read_fills
from pincex_client.replay.plan import choose_symbol, make_plan, symbol_of_file
from pincex_client.replay.run import Flow, Replay, Report, RunOptions
from pincex_client.transport import RetryPolicy

SHOWN_DIFFERENCES = 1_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    context: typer.Context,
    commands: Annotated[Path, typer.Argument(help="Recorded commands, CSV.", exists=True, dir_okay=False)],
    *,
    expect: Annotated[Path | None, typer.Option(help="Recorded fills, CSV.", exists=True, dir_okay=False)] = None,
    book: Annotated[Path | None, typer.Option(help="Recorded final book, JSON.", exists=True, dir_okay=False)] = None,
    symbol: Annotated[str, typer.Option(help="Of the market to make; default: from the file's name.")] = "",
    rate: Annotated[float | None, typer.Option(help="Commands per second; default: as fast as it goes.")] = None,
    tick: Annotated[str | None, typer.Option(help="Tick; default: from the data.")] = None,
    lot: Annotated[str | None, typer.Option(help="Lot; default: from the data.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Most commands without a result.")] = 2_000,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Most commands in one message.")] = 500,
    patience: Annotated[float, typer.Option(min=1.0, help="Seconds of outage to sit out.")] = 120.0,
    run_id: Annotated[str, typer.Option(help="Continue the run of this id, after this command was cut off.")] = "",
) -> None:
    """Play a recorded order flow through an order session and compare every fill. Exit status 1 on any difference.

    Makes a market and a funded account of its own, through the ops listener. Rides through restarts of the exchange:
    each command has an id that follows from the run and the recorded order, and is executed once.
    """
    settings = settings_of(context)
    if rate is not None and rate <= 0:
        usage_error(settings, "--rate must be above zero")
    try:
        flow = Flow(
            read_commands(commands),
            None if expect is None else read_fills(expect),
            None if book is None else read_book(book),
        )
        options = RunOptions(rate, window, batch, patience, resumed=bool(run_id))
        name = symbol or symbol_of_file(commands.name)
        work = _play(settings, flow, options, name, run_id or new_run_id(), _step(tick, "--tick"), _step(lot, "--lot"))
        report = run(settings, work)
    except FlowError as error:
        usage_error(settings, str(error))
    if settings.as_json:
        print_json({**to_json(report), "equal": report.equal})
    else:
        show(report)
    if not report.equal:
        raise typer.Exit(EXIT_REFUSED)


def new_run_id() -> str:
    """A fresh run id: time first, so that runs sort."""
    return f"{int(time.time()):08x}{uuid.uuid4().hex[:4]}"[-10:]


def _step(text: str | None, option: str) -> Decimal | None:
    if text is None:
        return None
    try:
        step = Decimal(text)
    except InvalidOperation:
        raise FlowError(f"{option}: {text!r} is no number") from None
    if not step.is_finite() or step <= 0:
        raise FlowError(f"{option} must be above zero")
    return step.normalize()


async def _play(
    settings: Settings,
    flow: Flow,
    options: RunOptions,
    symbol: str,
    run_id: str,
    tick: Decimal | None,
    lot: Decimal | None,
) -> Report:
    edge, ops = target.edge_target(settings.target), target.ops_target(settings.ops_target)
    policy = RetryPolicy(deadline=options.patience)
    async with ExchangeClient(edge, token=settings.token, policy=policy) as exchange:
        symbol = await choose_symbol(exchange, symbol.upper(), run_id, resumed=options.resumed)
        plan = make_plan(list(flow.commands), symbol=symbol, run_id=run_id, tick=tick, lot=lot)
    trader = ExchangeClient(edge, ops_target=ops, account=plan.account, token=settings.token, policy=policy)
    err.print(
        f"[dim]run {plan.run_id}: {len(flow.commands):,} commands on {escape(plan.symbol)} (tick {plan.tick:f}, "
        f"lot {plan.lot:f}) as {plan.account}; if cut off: --run-id {plan.run_id}[/dim]"
    )
    async with trader:
        with ExitStack() as stack:
            progress = stack.enter_context(_progress_bar())
            task = progress.add_task("replaying", total=len(flow.commands))
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                if done % 64 == 0 or done == len(flow.commands):
                    progress.update(task, completed=done)

            return await Replay(trader, plan, flow, options).run(advance)


def _progress_bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=err, transient=not err.is_terminal, disable=not err.is_terminal)


def show(report: Report) -> None:
    """Print each difference and the summary."""
    for difference in report.differences[:SHOWN_DIFFERENCES]:
        out.print(f"[red]different[/red]  {escape(str(difference))}")
    hidden = len(report.differences) - SHOWN_DIFFERENCES
    if hidden > 0:
        out.print(f"[red]and {hidden:,} more[/red]; --json has all")
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_column(style="bold")
    summary.add_column(justify="right")
    latency = "  ".join(f"{name} {value:,.2f}" for name, value in report.latency_ms.items())
    rows = [
        ("market", report.symbol),
        ("commands", f"{report.commands:,}"),
        ("seconds", f"{report.elapsed:,.2f}"),
        ("commands/s", f"{report.commands_per_second:,.0f}"),
        ("latency ms", latency),
        ("fills", f"{report.fills:,}"),
        ("fills compared", f"{report.fills_compared:,}"),
        ("book levels compared", f"{report.levels_compared:,}"),
        ("refused", f"{report.refused:,}"),
        ("reconnects", f"{report.reconnects:,}"),
        ("differences", f"{len(report.differences):,}"),
    ]
    for name, value in rows:
        summary.add_row(name, escape(value))
    out.print(summary)
    verdict = "[bold green]equal[/bold green]" if report.equal else "[bold red]different[/bold red]"
    out.print(verdict)
