"""`pincex login` and the like: who the command line is, and what users do with what is their own."""

import sys
from typing import Annotated, Any

import typer
from rich.markup import escape

from pincex_client.cli import profiles, render
from pincex_client.cli.context import call, confirm, out, print_json, settings_of, show_fields, usage_error
from pincex_client.client import ExchangeClient
from pincex_client.credentials import TokenSet
from pincex_client.errors import ExchangeError

PasswordFromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Code = Annotated[str, typer.Option(help="Of the authenticator, or a recovery code; asked for where it is needed.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in COMMANDS.items():
        app.command(name)(command)
    second_factor = typer.Typer(help="Codes of an authenticator beside the password.", no_args_is_help=True)
    second_factor.command("on")(second_factor_on)
    second_factor.command("off")(second_factor_off)
    second_factor.command("renew-codes")(renew_recovery_codes)
    app.add_typer(second_factor, name="second-factor")
    sessions = typer.Typer(help="Log-in sessions.", no_args_is_help=True)
    sessions.command("list")(list_sessions)
    sessions.command("end")(end_session)
    sessions.command("end-all")(end_all_sessions)
    app.add_typer(sessions, name="sessions")
    accounts = typer.Typer(help="Accounts beside the main one.", no_args_is_help=True)
    accounts.command("create")(create_sub_account)
    accounts.command("list")(list_sub_accounts)
    app.add_typer(accounts, name="sub-accounts")


def sign_up(
    context: typer.Context,
    email: Annotated[str, typer.Argument(help="A code to verify it is sent there.")],
    *,
    password_stdin: PasswordFromStdin = False,
) -> None:
    """Become a user. `verify-email` comes next."""
    password = _password(context, from_stdin=password_stdin, twice=True)
    call(context, lambda exchange: exchange.auth.register(email, password), anonymous=True)
    _say(context, f"a code was sent to {email}: pincex verify-email {email} CODE")


def verify_email(
    context: typer.Context,
    email: Annotated[str, typer.Argument(help="Your address.")],
    code: Annotated[str, typer.Argument(help="The eight digits; empty sends another code.")] = "",
) -> None:
    """Prove your address with the code that was sent to it."""
    if code:
        call(context, lambda exchange: exchange.auth.verify_email(email, code), anonymous=True)
        _say(context, f"verified: pincex login {email}")
    else:
        call(context, lambda exchange: exchange.auth.resend_verification(email), anonymous=True)
        _say(context, f"another code was sent to {email}")


def login(
    context: typer.Context,
    email: Annotated[str, typer.Argument(help="Your address.")],
    *,
    password_stdin: PasswordFromStdin = False,
    code: Code = "",
    scope: Annotated[list[str] | None, typer.Option(help="Only these: read, trade, withdraw, manage, admin.")] = None,
) -> None:
    """Log in, and keep the tokens for the next commands: `--profile` names where, `--account` a sub-account to act on."""
    settings = settings_of(context)
    account = settings.account or ""
    password = _password(context, from_stdin=password_stdin)
    where, ops = settings.place()

    async def open_session(exchange: ExchangeClient) -> TokenSet:
        # One connection for both attempts: the second comes within the same second as the first.
        try:
            return await exchange.auth.log_in(email, password, code=code, account=account, scopes=scope or ())
        except ExchangeError as error:
            if error.reason != "SECOND_FACTOR_REQUIRED" or code or not sys.stdin.isatty():
                raise
        given = typer.prompt("code of your authenticator", hide_input=True)
        return await exchange.auth.log_in(email, password, code=given, account=account, scopes=scope or ())

    tokens = call(context, open_session, anonymous=True)
    name = settings.profile or profiles.DEFAULT
    file = profiles.save(profiles.Profile(name=name, target=where, ops_target=ops, email=email).having(tokens))
    if settings.as_json:
        print_json({"profile": name, "user_id": tokens.user_id, "account": tokens.account, "file": str(file)})
    else:
        out.print(f"logged in as {escape(email)} (user {tokens.user_id}), acting on account {escape(tokens.account)}")
        out.print(f"[dim]kept in {escape(str(file))}[/dim]")


def logout(context: typer.Context) -> None:
    """End the session, and forget it here."""
    settings = settings_of(context)
    profile = settings.stored_profile()
    if profile is None:
        usage_error(settings, "nobody is logged in here")
    try:
        if not profile.api_key:
            call(context, lambda exchange: exchange.auth.log_out())
    finally:
        profiles.remove(profile.name)
    _say(context, f"logged out; the profile {profile.name} is gone")


def whoami(context: typer.Context) -> None:
    """Show who the exchange takes you for."""
    settings = settings_of(context)
    profile = settings.stored_profile()
    if profile is None and settings.token is None:
        usage_error(settings, "nobody is logged in here: on the development profile calls act as the account `demo`")
    show_fields(context, call(context, lambda exchange: exchange.auth.user()))


def list_profiles(context: typer.Context) -> None:
    """Show the profiles that are kept here."""
    settings = settings_of(context)
    found = [profile for name in profiles.names() if (profile := profiles.load(name)) is not None]
    if settings.as_json:
        print_json([{"profile": one.name, "target": one.target, "account": one.account} for one in found])
        return
    rows = [(one.name, one.target, one.api_key or one.email, one.account) for one in found]
    out.print(render.table(("profile", "exchange", "who", "account"), rows))


def change_password(context: typer.Context) -> None:
    """Set a new password; other sessions end."""
    old = typer.prompt("present password", hide_input=True)
    new = typer.prompt("new password", hide_input=True, confirmation_prompt=True)
    call(context, lambda exchange: exchange.auth.change_password(old, new))
    _say(context, "changed; other sessions have ended")


def reset_password(
    context: typer.Context,
    email: Annotated[str, typer.Argument(help="Your address.")],
    code: Annotated[str, typer.Argument(help="The eight digits; empty has them sent.")] = "",
    *,
    password_stdin: PasswordFromStdin = False,
) -> None:
    """Set a forgotten password by a code that is sent by mail."""
    if not code:
        call(context, lambda exchange: exchange.auth.request_password_reset(email), anonymous=True)
        _say(context, f"a code was sent to {email}: pincex reset-password {email} CODE")
        return
    password = _password(context, from_stdin=password_stdin, twice=True)
    call(context, lambda exchange: exchange.auth.reset_password(email, code, password), anonymous=True)
    _say(context, "set; all sessions have ended")


def second_factor_on(context: typer.Context, *, password_stdin: PasswordFromStdin = False) -> None:
    """Turn it on: shows a secret for your authenticator, takes a first code, shows the recovery codes."""
    password = _password(context, from_stdin=password_stdin)
    secret, uri = call(context, lambda exchange: exchange.auth.begin_second_factor(password))
    out.print(f"secret for your authenticator: [bold]{secret}[/bold]")
    out.print(escape(uri))
    code = typer.prompt("the code it shows now")
    _show_codes(context, call(context, lambda exchange: exchange.auth.confirm_second_factor(code)))


def second_factor_off(context: typer.Context, *, password_stdin: PasswordFromStdin = False, code: Code = "") -> None:
    """Turn it off."""
    password = _password(context, from_stdin=password_stdin)
    given = code or typer.prompt("code of your authenticator", hide_input=True)
    call(context, lambda exchange: exchange.auth.remove_second_factor(password, given))
    _say(context, "the second factor is off")


def renew_recovery_codes(context: typer.Context, *, password_stdin: PasswordFromStdin = False) -> None:
    """Ten new recovery codes; the old ones are void."""
    password = _password(context, from_stdin=password_stdin)
    _show_codes(context, call(context, lambda exchange: exchange.auth.renew_recovery_codes(password)))


def list_sessions(context: typer.Context) -> None:
    """Show where you are logged in."""
    found = call(context, lambda exchange: exchange.auth.list_sessions())
    if settings_of(context).as_json:
        print_json(found)
        return
    rows = [
        (one.session_id, one.ip_address, one.user_agent[:40], render.plain(one.used_time), "this one" * one.current)
        for one in found
    ]
    out.print(render.table(("session", "address", "program", "last used", ""), rows))


def end_session(
    context: typer.Context, session_id: Annotated[str, typer.Argument(help="From `pincex sessions list`.")]
) -> None:
    """End one, its tokens and streams included."""
    call(context, lambda exchange: exchange.auth.end_session(session_id))
    _say(context, f"session {session_id} has ended")


def end_all_sessions(context: typer.Context, *, yes: Annotated[bool, typer.Option("--yes", "-y")] = False) -> None:
    """End all, this one included; API keys stay."""
    confirm(context, "end all sessions, this one included?", yes=yes)
    ended = call(context, lambda exchange: exchange.auth.end_all_sessions())
    _say(context, f"{ended} sessions have ended")


def create_sub_account(
    context: typer.Context, name: Annotated[str, typer.Argument(help="1 to 32 of a-z, 0-9 and -.")]
) -> None:
    """Make an account beside the main one, with balances and orders of its own."""
    show_fields(context, call(context, lambda exchange: exchange.auth.create_sub_account(name)))


def list_sub_accounts(context: typer.Context) -> None:
    """Show them."""
    found = call(context, lambda exchange: exchange.auth.list_sub_accounts())
    if settings_of(context).as_json:
        print_json(found)
    else:
        rows = [(one.name, one.account, render.plain(one.created_time)) for one in found]
        out.print(render.table(("name", "account", "made"), rows))


def _password(context: typer.Context, *, from_stdin: bool, twice: bool = False) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        usage_error(settings_of(context), "no terminal to ask for the password: use --password-stdin")
    answer: str = typer.prompt("password", hide_input=True, confirmation_prompt=twice)
    return answer


def _show_codes(context: typer.Context, codes: tuple[str, ...]) -> None:
    if settings_of(context).as_json:
        print_json({"recovery_codes": codes})
        return
    out.print("recovery codes, each good once; they are not shown again:")
    for code in codes:
        out.print(f"  {code}")


def _say(context: typer.Context, text: str) -> None:
    if settings_of(context).as_json:
        print_json({"done": text})
    else:
        out.print(escape(text))


COMMANDS: dict[str, Any] = {
    "login": login,
    "logout": logout,
    "whoami": whoami,
    "profiles": list_profiles,
    "register": sign_up,
    "verify-email": verify_email,
    "change-password": change_password,
    "reset-password": reset_password,
}
