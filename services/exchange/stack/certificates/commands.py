"""`pincex certs`: make, show, renew and check certificates."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from exchange.stack import view
from exchange.stack.certificates.settings import EDGE, RENEW_DAYS
from exchange.stack.config import load_config
from exchange.stack.errors import StackError
from exchange.stack.files import make_home

if TYPE_CHECKING:
    from exchange.stack.certificates.settings import TlsSettings
    from exchange.stack.certificates.store import CertificateStore, Entry

CLIENT_AUTHORITY = "client-authority"

app = typer.Typer(help="Certificates of the edge, of clients and of services.", no_args_is_help=True)


@app.command()
def create(
    *,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A name or address of the edge beside this machine's own; repeatable."),
    ] = None,
) -> None:
    """Make a development authority and the edge's certificate, what is missing of them."""
    store, settings = _store()
    make_home(store.folder.parent)
    try:
        made = store.create_edge([settings.host, *(host or [])])
        names = ", ".join(next(one for one in store.entries() if one.name == EDGE).description().names)
    except StackError as error:
        _fail(str(error))
    view.say(f"{'made' if made else 'is there already:'} {store.edge}, for {names}")
    view.say(f"clients trust {store.authority}; the TLS listeners come with the next `pincex up`")


@app.command()
def client(name: Annotated[str, typer.Argument(metavar="NAME", help="Stands in the certificate's URI.")]) -> None:
    """Make a client's certificate for the mTLS listener."""
    store, _ = _store()
    make_home(store.folder.parent)
    try:
        uri = store.create_client(name)
    except StackError as error:
        _fail(str(error))
    view.say(f"made {store.client(name)}: private key and certificate of {uri}")
    view.say(f'until it stands for an account it is refused: POST /admin/certificates {{"subject_uri": "{uri}", ...}}')


@app.command()
def renew(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="As `pincex certs list` shows them.")
    ] = None,
) -> None:
    """Renew certificates that we made: the named ones, or all that expire within 30 days. They are in use at once."""
    store, _ = _store()
    try:
        done = store.renew(names or [])
    except StackError as error:
        _fail(str(error))
    for name in done:
        view.say(f"renewed {name}")
    if not done:
        view.say(f"nothing expires within {RENEW_DAYS} days")


@app.command("list")
def show(*, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show what each certificate says. One that cannot be read is named, with exit status 1."""
    now = datetime.now(UTC)
    failed = False
    shown = []
    for entry in _entries():
        try:
            shown.append(_row(entry, now))
        except StackError as error:
            view.error(f"{entry.name}: {error}")
            failed = True
    if as_json:
        view.raw(json.dumps({"certificates": shown}, indent=2))
    else:
        for row in shown:
            view.say(str(row.pop("name")))
            for what, value in row.items():
                view.say(f"  {what:<12} {', '.join(value) or '-' if isinstance(value, list) else value}")
    if failed:
        raise typer.Exit(1)


@app.command()
def check(
    *,
    days: Annotated[int, typer.Option("--days", min=0, help="How long they must still be good.")] = RENEW_DAYS,
) -> None:
    """Print when each certificate expires. Exit status 1 if one expires soon, has expired, or is wrong."""
    now = datetime.now(UTC)
    entries = _entries()
    problems = 0
    for entry in entries:
        try:
            # As `openssl x509 -enddate` has it.
            end = f"notAfter={entry.certificate().not_valid_after_utc:%b %e %H:%M:%S %Y} GMT"
        except StackError:
            end = "notAfter=unknown"
        problem = entry.problem(now, days)
        problems += problem is not None
        view.say(f"{entry.name}: {end}" + (f"  {problem}" if problem else ""))
    if not entries:
        view.say("there are no certificates: `pincex certs create` makes them")
    if problems:
        raise typer.Exit(1)


def _row(entry: Entry, now: datetime) -> dict[str, object]:
    found = entry.description()
    return {
        "name": entry.name,
        "subject": found.subject,
        "names": list(found.names),
        "issuer": found.issuer,
        "not_after": f"{found.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "days_left": found.days_left(now),
        "fingerprint": found.fingerprint,
        "file": str(entry.file),
    }


def _entries() -> list[Entry]:
    """What is in use or was made: an operator's own certificates take the place of ours."""
    from exchange.stack.certificates.store import Entry  # noqa: PLC0415 - see `_store`

    store, settings = _store()
    given = []
    if settings.certificate is not None:
        given.append(Entry(EDGE, settings.certificate, key=settings.key))
    if settings.client_authority is not None:
        given.append(Entry(CLIENT_AUTHORITY, settings.client_authority))
    names = {entry.name for entry in given}
    return [*given, *(entry for entry in store.entries() if entry.name not in names)]


def _store() -> tuple[CertificateStore, TlsSettings]:
    # Cryptography is loaded by who needs it: all other commands start faster.
    from exchange.stack.certificates.store import CertificateStore  # noqa: PLC0415

    try:
        config = load_config(os.environ, Path.cwd())
        return CertificateStore(config.home), config.tls
    except StackError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    view.error(message)
    raise typer.Exit(1)
