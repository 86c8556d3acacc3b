"""`python -m exchange.stack up`: the stack's commands without the rest of the command line."""

import typer

from exchange.stack.commands import register

app = typer.Typer(help="Runs the exchange on this machine.", no_args_is_help=True)
register(app)
app()
