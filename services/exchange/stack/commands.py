"""`pincex up`, `down`, `status`, `scale`, `kill`, `logs`: the exchange on one machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from exchange.stack import view
from exchange.stack.certificates.commands import app as certificates
from exchange.stack.config import StackConfig, UpOptions, load_config
from exchange.stack.control import NotRunning, is_running, request
from exchange.stack.detach import start_detached
from exchange.stack.errors import StackError
from exchange.stack.files import make_home, tail
from exchange.stack.first_operator import OPERATOR_EMAIL, take_operator_password
from exchange.stack.leftovers import end_leftovers
from exchange.stack.postgresql.commands import app as database

STOP_TIMEOUT_S = 90.0
ENGINE = "trading-engine"
NO_ENGINE = (
    "without a trading engine nobody can cancel either: orders stay open, and clients are trapped in them. "
    "To stop trading and let clients out: `pincex admin cancel-only SYMBOL`, or `pincex admin circuit-breaker on`"
)
START_TIMEOUT_S = 300.0
RESTART_TIMEOUT_S = 60.0

_POLL_S = 0.05


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (up, down, status, scale, restart, kill, logs):
        app.command()(command)
    app.add_typer(certificates, name="certs")
    app.add_typer(database, name="db")


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is healthy.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Keep nothing: no PostgreSQL, a journal in memory.")] = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="PostgreSQL with a synchronous standby; the data folder keeps it.")
    ] = False,
) -> None:
    """Run the whole exchange on this machine; Ctrl-C stops it."""
    config = _config()
    make_home(config.home)
    if is_running(config.home):
        _already_running(config, standby=standby)
        return
    options = UpOptions(memory=memory, standby=standby)
    view.starting(config.home, memory=memory)

    def show(event: dict[str, Any]) -> None:
        view.event(event)
        if event["event"] == "up":
            _first_login(config)

    try:
        if detach:
            start_detached(config, options, show)
        else:
            # Loaded by who runs an exchange: all other commands start in half the time without it.
            from exchange.stack.run import supervise  # noqa: PLC0415

            asyncio.run(supervise(config, options, show))
            view.stopped()
    except StackError as error:
        _fail(str(error))


def down() -> None:
    """Stop the exchange, and whatever a killed one left behind. Its data stays."""
    config = _config()
    try:
        request(config.home, "stop")
    except NotRunning:
        ended = end_leftovers(config.home)
        view.say(f"stopped {ended} processes of an exchange whose supervisor was gone" if ended else "not running")
        return
    except StackError as error:
        _fail(str(error))
    _wait(lambda: not is_running(config.home), STOP_TIMEOUT_S, "the exchange did not stop")
    view.stopped()


def status(*, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show what runs and where. Exit status 1 if the exchange is not running."""
    config = _config()
    try:
        found: dict[str, Any] = request(config.home, "status")
    except NotRunning as error:
        if as_json:
            view.raw(json.dumps({"state": "stopped", "services": [], "home": str(config.home)}))
            raise typer.Exit(1) from None
        _fail(str(error))
    except StackError as error:
        _fail(str(error))
    if as_json:
        view.raw(json.dumps(found, indent=2))
    else:
        view.table(found)


def scale(target: Annotated[str, typer.Argument(metavar="SERVICE=N")]) -> None:
    """Run N instances of a service, such as trading-engine=3."""
    service, separator, count = target.partition("=")
    if not separator or not count.isascii() or not count.isdigit():
        _fail(f"expected SERVICE=N, such as trading-engine=3, not {target!r}")
    if service == ENGINE and int(count) == 0:
        view.warning(NO_ENGINE)
    _ask("scale", service=service, count=int(count))


def restart(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Such as trading-engine, with all its instances.")],
) -> None:
    """Restart a service, one instance after the other, the leader last: what is installed and in `.env` now runs then."""
    from exchange.stack.rolling import roll  # noqa: PLC0415 - see `up`

    try:
        roll(_config().home, service, view.say)
    except StackError as error:
        _fail(str(error))


def kill(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `pincex status` shows it, such as trading-engine-1.")],
    signal_name: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="KILL, TERM, STOP, ...")
    ] = "KILL",
    *,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Return when another process has taken its place and is ready.")
    ] = False,
) -> None:
    """Send a signal to an instance; if it dies it is started again."""
    full = signal_name.upper() if signal_name.upper().startswith("SIG") else f"SIG{signal_name.upper()}"
    if full not in signal.Signals.__members__:
        _fail(f"there is no signal {signal_name}")
    pid = _ask("kill", quiet=True, name=name, signal=full)
    view.say(f"sent {full} to {name} (pid {pid})")
    if wait:

        def replaced() -> bool:
            status = request(_config().home, "status")
            now = next(instance for instance in status["services"] if instance["name"] == name)
            return bool(now["state"] == "ready" and now["pid"] != pid)

        _wait(replaced, RESTART_TIMEOUT_S, f"{name} has not ended and come back")


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An instance, or supervisor, migrate, envoy-access.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 200,
) -> None:
    """Show the log of an instance."""
    folder = _config().home / "logs"
    file = folder / f"{name}.log"
    if file.parent != folder or not file.is_file():
        names = ", ".join(sorted(log.stem for log in folder.glob("*.log"))) or "none"
        _fail(f"there is no log of {name!r}; logs: {names}")
    for line in tail(file, lines):
        view.raw(line)
    if follow:
        _follow(file)


def _follow(file: Path) -> None:
    position = file.stat().st_size
    try:
        while True:
            size = file.stat().st_size
            position = position if position <= size else 0
            if size > position:
                with file.open("rb") as opened:
                    opened.seek(position)
                    chunk = opened.read()
                position += len(chunk)
                sys.stdout.write(chunk.decode(errors="replace"))
                sys.stdout.flush()
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return


def _first_login(config: StackConfig) -> None:
    """Once, to whoever sees the exchange up first."""
    password = take_operator_password(config.home)
    if password is not None:
        view.first_login(OPERATOR_EMAIL, password)


def _already_running(config: StackConfig, *, standby: bool) -> None:
    """The exchange of this folder, once it is up: another `up` may have begun a moment ago."""

    def is_up() -> bool:
        return is_running(config.home) and request(config.home, "status")["state"] == "running"

    try:
        _wait(is_up, START_TIMEOUT_S, "the exchange is starting, but does not become healthy")
        status = request(config.home, "status")
        if standby and "database" not in status:
            _fail("the exchange is running already, without a standby: `pincex down`, then `pincex up --standby`")
        view.say("the exchange is running already")
        view.addresses(status)
        _first_login(config)
    except StackError as error:
        _fail(str(error))


def _ask(command: str, *, quiet: bool = False, **arguments: object) -> object:
    try:
        result: object = request(_config().home, command, **arguments)
    except StackError as error:
        _fail(str(error))
    if not quiet:
        view.say(str(result))
    return result


def _wait(condition: Any, timeout_s: float, failure: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            _fail(f"{failure} within {timeout_s:g} s")
        time.sleep(_POLL_S)


def _config() -> StackConfig:
    try:
        return load_config(os.environ, Path.cwd())
    except StackError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    view.error(message)
    raise typer.Exit(1)
