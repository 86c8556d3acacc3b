"""What every command shares: the options given, output for people and for scripts, and how failures are shown."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from pincex_client.cli import profiles, render, target
from pincex_client.client import ExchangeClient
from pincex_client.credentials import Credentials, Fixed
from pincex_client.errors import ExchangeError, Unavailable
from pincex_client.transport import RetryPolicy, Tls, is_https, strip_scheme

Answer = TypeVar("Answer")

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130

# A command waits this long for an exchange that restarts, then says so.
DEADLINE = 5.0
WIDE_COLUMNS = 400

# Tables go to stdout, and are never cut where nobody looks at a screen.
out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE_COLUMNS)
err = Console(stderr=True, highlight=False, soft_wrap=True)

ADVICE: Mapping[str, str] = {
    "INSUFFICIENT_FUNDS": "see `pincex balances`; on the development profile `pincex credit ACCOUNT ASSET AMOUNT` adds funds",
    "UNKNOWN_SYMBOL": "see `pincex markets`",
    "UNKNOWN_ASSET": "see `pincex markets`",
    "ORDER_NOT_FOUND": "see `pincex orders --all`; another account's orders need --account",
    "ORDER_CLOSED": "it is filled or cancelled already: see `pincex order ID`",
    "PRICE_OFF_TICK": "give a price that is a multiple of the market's tick: see `pincex markets`",
    "QUANTITY_OFF_LOT": "give a quantity that is a multiple of the market's lot: see `pincex markets`",
    "POST_ONLY_WOULD_CROSS": "move the price away from the other side of the book, or leave out --post-only",
    "FOK_NOT_FILLABLE": "there is not enough on the other side: see `pincex book SYMBOL`",
    "NO_LIQUIDITY": "the other side of the book is empty: place a LIMIT order",
    "PRICE_OUT_OF_BAND": "the price is too far from the last trade: see `pincex markets`",
    "MARKET_HALTED": "an operator resumes it: `pincex admin resume SYMBOL`",
    "MARKET_CANCEL_ONLY": "an operator resumes it: `pincex admin resume SYMBOL`",
    "NEW_ORDERS_DISABLED": "an operator turns them on: `pincex admin new-orders on`",
    "MAINTENANCE": "an operator ends it: `pincex admin maintenance off`",
    "CIRCUIT_BREAKER": "an operator turns it off: `pincex admin circuit-breaker off`",
    "DUPLICATE_ID": "the id was used with other contents: choose another, or repeat exactly what was sent",
    "UNAUTHENTICATED": "log in: `pincex login EMAIL`; anonymous calls work from loopback on the development profile only",
    "CREDENTIALS_REFUSED": "`pincex reset-password EMAIL` sends a code for a new password",
    "SECOND_FACTOR_REQUIRED": "give --code, from your authenticator or one of the recovery codes",
    "EMAIL_NOT_VERIFIED": "`pincex verify-email EMAIL CODE`; without a code another one is sent",
    "TOKEN_REFUSED": "log in again: `pincex login EMAIL`",
    "TOKEN_EXPIRED": "log in again: `pincex login EMAIL`",
    "CREDENTIAL_REVOKED": "the session or key was ended: log in again, or make another key",
    "ACCOUNT_LOCKED": "support unlocks it: `pincex admin accounts unlock USER_ID`",
    "SCOPE_MISSING": "log in without --scope, or use a key that has the scope",
    "TOO_MANY_ATTEMPTS": "wait as long as retry_after says; each attempt meanwhile makes it longer",
    "PERMISSION_DENIED": "this needs a role that you lack; operators' calls go to the ops listener: see --ops-target",
    "UNKNOWN_PATH": "the address answers, but not as this part of the exchange: check --target and --ops-target",
    "ADDRESS_NOT_LISTED": "`pincex wallet addresses add ASSET ADDRESS LABEL` lists it",
    "ADDRESS_COOLING_OFF": "see `pincex wallet addresses list` for when it becomes usable",
    "WITHDRAWAL_LIMIT": "see `pincex wallet limits`",
    "KYC_REQUIRED": "see `pincex kyc tiers`; `pincex kyc submit TIER` asks for a higher one",
    "WITHDRAWALS_STOPPED": "operators see why: `pincex admin wallet status`",
    "WITHDRAWAL_UNDER_WAY": "see `pincex wallet withdrawals` for where it stands",
    "WITHDRAWAL_NOT_FOUND": "see `pincex wallet withdrawals`; another account's need --account",
    "UNKNOWN_NETWORK": "see `pincex wallet networks`",
    "SEQUENCE_IN_FUTURE": "leave the sequence out for the newest state; head_sequence is the last one",
    "SEQUENCE_NOT_RETAINED": "begin at floor_sequence: what lies before is no longer kept",
    "OVERLOADED": "wait a moment and repeat",
    "RULES_NOT_SUPPORTED": "see `pincex replicas`; `pincex restart trading-engine` starts older builds anew",
}
UNREACHABLE_ADVICE = (
    "is the exchange running? `pincex up` starts it, `pincex status` shows it; --target names another one"
)


@dataclass(slots=True)
class Settings:
    """The global options."""

    target: str | None = None
    ops_target: str | None = None
    account: str | None = None
    token: str | None = None
    profile: str | None = None
    as_json: bool = False
    timeout: float = DEADLINE
    tls: Tls = field(default_factory=Tls)

    def client(self, *, anonymous: bool = False) -> ExchangeClient:
        """A client for these options; close it. An anonymous one proves nothing: to log in."""
        edge, ops = self.place()
        return ExchangeClient(
            edge,
            ops_target=ops,
            credentials=Fixed() if anonymous else self._credentials(),
            policy=RetryPolicy(deadline=self.timeout),
            tls=self.tls if is_https(edge) or is_https(ops) else None,
        )

    def place(self) -> tuple[str, str]:
        """Edge and ops listener: as given, else those of the named profile, else the running stack's, else the default
        profile's, else the well-known ports.
        """
        named = profiles.load(self.profile) if self.profile else None
        fallback = None if self.profile else profiles.load(profiles.DEFAULT)
        wanted = (named.target, named.ops_target) if named is not None else (None, None)
        last = (fallback.target, fallback.ops_target) if fallback is not None else (None, None)
        edge = target.edge_target(self.target or wanted[0], last[0])
        ops = target.ops_target(self.ops_target or wanted[1], last[1])
        return strip_scheme(edge), strip_scheme(ops)

    def stored_profile(self) -> profiles.Profile | None:
        """The profile that is named, or the default one where it is for this exchange; None for nobody.

        Raises ProfileError where the named one is not there, or belongs to another exchange: secrets go nowhere else.
        """
        edge, _ = self.place()
        found = profiles.load(self.profile or profiles.DEFAULT)
        if self.profile and found is None:
            raise profiles.ProfileError(f"no profile {self.profile!r}: pincex login --profile {self.profile} EMAIL")
        if found is None or found.target == edge:
            return found
        if self.profile:
            raise profiles.ProfileError(f"the profile {self.profile!r} is for {found.target}, not for {edge}")
        return None

    def _credentials(self) -> Credentials:
        """`--token` before a named profile, that before `--account`, that before the default profile."""
        if self.token or (self.account and not self.profile):
            return Fixed(account=self.account, token=self.token)
        profile = self.stored_profile()
        return profile.credentials() if profile is not None else Fixed()


def settings_of(context: typer.Context) -> Settings:
    """The global options of this call."""
    settings = context.find_root().obj
    assert isinstance(settings, Settings), "the app's callback sets them"
    return settings


def call(
    context: typer.Context,
    action: Callable[[ExchangeClient], Awaitable[Answer]],
    *,
    endless: bool = False,
    anonymous: bool = False,
) -> Answer:
    """Do one thing with a client; failures are shown and end the process with their exit status.

    An `endless` one is ended by Ctrl-C, which is then no failure. An `anonymous` one does not say who calls.
    """
    settings = settings_of(context)

    async def do() -> Answer:
        async with settings.client(anonymous=anonymous) as exchange:
            return await action(exchange)

    return run(settings, do(), interrupted=0 if endless else EXIT_INTERRUPTED)


def run(settings: Settings, work: Coroutine[Any, Any, Answer], *, interrupted: int = EXIT_INTERRUPTED) -> Answer:
    """Run to the end, on uvloop where it is installed."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except ExchangeError as error:
        show_error(settings, error)
        raise typer.Exit(EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_REFUSED) from None
    except (ValueError, TypeError) as error:
        # The SDK refuses what cannot be sent at all, such as an unknown side.
        usage_error(settings, str(error))
    except KeyboardInterrupt:
        raise typer.Exit(interrupted) from None


def usage_error(settings: Settings, message: str) -> NoReturn:
    """Say what is wrong with the call and leave."""
    if settings.as_json:
        print_json({"error": {"reason": "USAGE", "message": message}})
    else:
        err.print(f"[red]usage[/red]: {escape(message)}")
    raise typer.Exit(EXIT_USAGE)


def confirm(context: typer.Context, question: str, *, yes: bool) -> None:
    """Ask before something that cannot be taken back; without a terminal only `--yes` will do."""
    if yes:
        return
    if not sys.stdin.isatty():
        usage_error(settings_of(context), f"{question} No terminal to ask: say --yes")
    if not typer.confirm(question):
        raise typer.Exit(EXIT_REFUSED)


def show_fields(context: typer.Context, found: Any, *, instead: Mapping[str, Any] | None = None) -> None:
    """Show one dataclass, a field a line; for people with `instead` of the values of some fields, and without those of None."""
    if settings_of(context).as_json:
        print_json(found)
        return
    words = instead or {}
    for name in found.__dataclass_fields__:
        value = words.get(name, getattr(found, name))
        if name in words and value is None:
            continue
        label = f"[bold]{name.replace('_', ' '):20}[/bold]"
        if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
            out.print(f"{label} {escape(', '.join(value))}")
        elif isinstance(value, tuple):
            for line in value:
                out.print(f"  {escape(str(line))}")
        else:
            out.print(f"{label} {render.plain(value) if value is not False else 'no'}")


def show_error(settings: Settings, error: ExchangeError) -> None:
    """Show a refusal: what, why, where, and what to do."""
    advice = UNREACHABLE_ADVICE if isinstance(error, Unavailable) else ADVICE.get(error.reason, "")
    if settings.as_json:
        content = {
            "reason": error.reason,
            "message": error.message,
            "code": error.code.name if error.code else None,
            "metadata": error.metadata,
            "retry_after": error.retry_after,
            "request_id": error.request_id,
            "advice": advice,
        }
        print_json({"error": content})
        return
    what = "unreachable" if isinstance(error, Unavailable) else "refused"
    err.print(f"[bold red]{what}[/bold red]: [bold]{escape(error.reason)}[/bold]  {escape(error.message)}")
    for key, value in error.metadata.items():
        err.print(f"  {escape(key)}: {escape(value)}")
    for name, description in error.violations:
        if name not in error.metadata.values():
            err.print(f"  {escape(name)}: {escape(description)}")
    if advice:
        err.print(f"  [dim]{escape(advice)}[/dim]")
    if error.request_id:
        err.print(f"  [dim]request id {escape(error.request_id)}[/dim]")


def print_json(content: Any, *, lines: bool = False) -> None:
    """Write one JSON document, or one line of NDJSON."""
    text = json.dumps(to_json(content), indent=None if lines else 2)
    sys.stdout.write(text + "\n")
    if lines:
        sys.stdout.flush()


def to_json(content: Any) -> Any:
    """Dataclasses, decimals and times as JSON: amounts are text, times ISO 8601 in UTC."""
    if is_dataclass(content) and not isinstance(content, type):
        return to_json(asdict(content))
    match content:
        case dict():
            return {key: to_json(value) for key, value in content.items()}
        case list() | tuple():
            return [to_json(item) for item in content]
        case Decimal():
            return format(content, "f")
        case datetime():
            return content.isoformat().replace("+00:00", "Z")
    return content


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - optional: the SDK runs without it
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
