"""The application: global options, and the commands of all parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pincex_client.cli import (
    admin,
    audit,
    feeds,
    journal,
    keys,
    kyc,
    ledger,
    login,
    market_data,
    markets,
    migrate,
    mm,
    orders,
    replay,
    replicas,
    wallet,
)
from pincex_client.cli.context import DEADLINE, Settings
from pincex_client.cli.stack import STACK_COMMANDS, mount_stack
from pincex_client.transport import Tls

# Understood after a command too, where most people write them.
GLOBAL_FLAGS = frozenset({"--json"})
GLOBAL_VALUES = frozenset(
    {"--target", "--ops-target", "--account", "--token", "--profile", "--timeout", "--ca", "--certificate"}
)
# Commands with options of their own by those names.
KEEP_OPTIONS = STACK_COMMANDS | {"migrate"}


def build_app() -> typer.Typer:
    """Make the application; the commands that need the server package are there if it is installed."""
    app = typer.Typer(
        name="pincex",
        help="PinCEX: trade on an exchange, operate it, and run one on this machine.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(global_options)
    orders.register(app)
    markets.register(app)
    market_data.register(app)
    replay.register(app)
    replicas.register(app)
    login.register(app)
    ledger.register(app)
    app.add_typer(keys.build(), name="keys")
    app.add_typer(kyc.build(), name="kyc")
    app.add_typer(feeds.build(), name="feeds")
    app.add_typer(wallet.build(), name="wallet")
    app.add_typer(mm.build(), name="mm")
    app.add_typer(admin.build(), name="admin")
    app.add_typer(journal.build(), name="journal")
    app.add_typer(audit.build(), name="audit")
    app.add_typer(migrate.build(), name="migrate")
    mount_stack(app)
    return app


def global_options(
    context: typer.Context,
    *,
    target: Annotated[
        str | None, typer.Option(envvar="PINCEX_TARGET", help="The public edge; default: the running stack's.")
    ] = None,
    ops_target: Annotated[
        str | None, typer.Option(envvar="PINCEX_OPS_TARGET", help="The ops listener; default: the running stack's.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(envvar="PINCEX_ACCOUNT", help="Whose orders and balances (development profile).")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="PINCEX_TOKEN", help="Access token.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, envvar="PINCEX_TIMEOUT", help="Seconds to wait for an exchange that is away.")
    ] = DEADLINE,
    profile: Annotated[
        str | None, typer.Option(envvar="PINCEX_CLI_PROFILE", help="Who calls, as `pincex login` kept it.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(envvar="PINCEX_CA", help="Who signs the certificate of an https:// target.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(envvar="PINCEX_CLIENT_CERTIFICATE", help="Ours, with its private key, for an mTLS listener."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts; NDJSON for streams.")] = False,
) -> None:
    """Take in the options that every command shares."""
    context.obj = Settings(
        target, ops_target, account, token, profile, as_json, timeout, Tls(authority=ca, certificate=certificate)
    )


def hoist_global_options(arguments: Sequence[str]) -> list[str]:
    """Move global options that stand after a command to the front: `pincex orders --json` is what people write.

    Commands of the stack keep theirs; `admin` keeps `--account`, which there says whose orders are meant.
    """
    words = list(arguments)
    start = _command_index(words)
    if start is None or words[start] in KEEP_OPTIONS:
        return words
    keeps_account = words[start] == "admin"
    front, rest = words[:start], [words[start]]
    index = start + 1
    while index < len(words):
        word = words[index]
        name, has_value = word.split("=", 1)[0], "=" in word
        if word == "--":
            rest += words[index:]
            break
        if name in GLOBAL_VALUES and not (name == "--account" and keeps_account):
            take = 1 if has_value else 2
            front += words[index : index + take]
            index += take
            continue
        (front if word in GLOBAL_FLAGS else rest).append(word)
        index += 1
    return front + rest


def _command_index(words: Sequence[str]) -> int | None:
    index = 0
    while index < len(words):
        word = words[index]
        if not word.startswith("-"):
            return index
        index += 2 if word in GLOBAL_VALUES else 1
    return None
