"""The commands that run an exchange on this machine; they are there if the server package is installed."""

import importlib

import typer

# `migrate` is the SDK's own, and takes its options where these take theirs.
STACK_COMMANDS = frozenset({"up", "down", "status", "scale", "restart", "kill", "logs", "certs", "db"})


def build_stack_app() -> typer.Typer | None:
    """Only these commands, for a call that begins with one of them: nothing of the SDK is loaded. None without the server package."""
    app = typer.Typer(name="pincex", pretty_exceptions_enable=False)
    return app if mount_stack(app) else None


def mount_stack(app: typer.Typer) -> bool:
    """Add the commands if the server package is installed; return whether it is."""
    try:
        commands = importlib.import_module("exchange.stack.commands")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "exchange":
            raise
        return False
    commands.register(app)
    return True
