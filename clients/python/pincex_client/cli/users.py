"""`pincex admin accounts|users|certificates`: what operators and support do to users, on the ops listener."""

from typing import Annotated, Any

import typer

from pincex_client import identity
from pincex_client.cli import render
from pincex_client.cli.context import call, out, print_json, settings_of, show_fields
from pincex_client.cli.spans import optional_span

UserId = Annotated[str, typer.Argument(help="Decimal digits.")]
Reason = Annotated[str, typer.Option(help="For the audit trail.")]
RequiredReason = Annotated[str, typer.Option(help="For the audit trail. Required.")]
Window = Annotated[str, typer.Option(help="Such as 15m, 12h or 7d; default: an hour.")]


def add_to(group: typer.Typer) -> None:
    """Add the groups to `pincex admin`."""
    for name, (summary, commands) in GROUPS.items():
        sub = typer.Typer(help=summary, no_args_is_help=True)
        for command_name, command in commands.items():
            sub.command(command_name)(command)
        group.add_typer(sub, name=name)
    group.command("revoke-key")(revoke_key)
    group.command("rotate-signing-key")(rotate_signing_key)
    group.command("retire-signing-key")(retire_signing_key)


def locked(context: typer.Context) -> None:
    """Show who is locked."""
    found = call(context, lambda exchange: exchange.admin.users.locked())
    _table(
        context,
        found,
        ("user", "email", "reason", "locked", "until", "failed"),
        lambda one: (
            one.user_id,
            one.email,
            one.reason,
            render.plain(one.locked_time),
            render.plain(one.locked_until_time) if one.locked_until_time else "until unlocked",
            one.failed_attempts,
        ),
    )


def unlock(context: typer.Context, user_id: UserId, *, reason: Reason = "") -> None:
    """Lift a lock, and forget the failed attempts behind it."""
    _show_user(context, call(context, lambda exchange: exchange.admin.users.unlock(user_id, reason=reason)))


def lock(
    context: typer.Context,
    user_id: UserId,
    *,
    reason: RequiredReason,
    duration: Annotated[str, typer.Option("--for", help="Such as 12h; default: until somebody unlocks.")] = "",
    cancel_orders: Annotated[bool, typer.Option("--cancel-orders", help="Cancel all that it has open.")] = False,
) -> None:
    """Lock a user: tokens, keys and streams end within a second."""
    _show_user(
        context,
        call(
            context,
            lambda exchange: exchange.admin.users.lock(
                user_id, reason=reason, duration=optional_span(duration), cancel_orders=cancel_orders
            ),
        ),
    )


def failed(
    context: typer.Context,
    *,
    window: Window = "",
    user_id: Annotated[str, typer.Option(help="Only of this user.")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 50,
) -> None:
    """Show failed log-ins, the newest first."""
    found = call(
        context,
        lambda exchange: exchange.admin.users.failed_attempts(
            window=optional_span(window), user_id=user_id, limit=limit
        ),
    )
    _table(
        context,
        found,
        ("user", "address", "when", "reason"),
        lambda one: (one.user_id or "unknown", one.ip_address, render.plain(one.attempt_time), one.reason),
    )


def many_addresses(
    context: typer.Context, *, window: Window = "", more_than: Annotated[int, typer.Option(min=1)] = 3
) -> None:
    """Show users who logged in from many addresses."""
    found = call(
        context,
        lambda exchange: exchange.admin.users.many_addresses(window=optional_span(window), more_than=more_than),
    )
    _table(
        context,
        found,
        ("user", "addresses", ""),
        lambda one: (one.user_id, one.address_count, ", ".join(one.ip_addresses)),
    )


def log_out(
    context: typer.Context,
    user_id: UserId,
    *,
    reason: Reason = "",
    revoke_keys: Annotated[bool, typer.Option("--revoke-keys", help="Its API keys too.")] = False,
) -> None:
    """End all sessions of a user."""
    show_fields(
        context,
        call(
            context,
            lambda exchange: exchange.admin.users.log_out(user_id, reason=reason, revoke_api_keys=revoke_keys),
        ),
    )


def show_user(context: typer.Context, user_id: UserId) -> None:
    """Show one user."""
    _show_user(context, call(context, lambda exchange: exchange.admin.users.get(user_id)))


def list_users(context: typer.Context, *, email: Annotated[str, typer.Option(help="Exactly this one.")] = "") -> None:
    """Show users by id."""
    found = call(context, lambda exchange: exchange.admin.users.find(email=email))
    _table(
        context,
        found,
        ("user", "email", "roles", "tier", "2nd factor", "made"),
        lambda one: (
            one.user_id,
            one.email,
            ",".join(role.lower() for role in one.roles),
            one.tier,
            "on" if one.second_factor else "off",
            render.plain(one.created_time),
        ),
    )


def set_roles(
    context: typer.Context,
    user_id: UserId,
    roles: Annotated[list[str], typer.Argument(help="trader, market_maker, support, operator, admin, auditor.")],
    *,
    reason: RequiredReason,
) -> None:
    """Give a user these roles and no other."""
    _show_user(context, call(context, lambda exchange: exchange.admin.users.set_roles(user_id, roles, reason=reason)))


def set_tier(
    context: typer.Context,
    user_id: UserId,
    tier: Annotated[str, typer.Argument(help="standard, professional, institution, market_maker.")],
    *,
    reason: RequiredReason,
) -> None:
    """Give a user the limits of a tier."""
    _show_user(context, call(context, lambda exchange: exchange.admin.users.set_tier(user_id, tier, reason=reason)))


def revoke_key(
    context: typer.Context,
    api_key: Annotated[str, typer.Argument(help="ak_...")],
    *,
    reason: Reason = "",
    cancel_orders: Annotated[bool, typer.Option("--cancel-orders", help="Cancel what it has open.")] = False,
) -> None:
    """Revoke a compromised key for good, whoever it belongs to."""
    show_fields(
        context,
        call(
            context,
            lambda exchange: exchange.admin.users.revoke_api_key(api_key, reason=reason, cancel_orders=cancel_orders),
        ),
    )


def rotate_signing_key(context: typer.Context, *, reason: Reason = "") -> None:
    """Sign access tokens with a new key from now on; nobody is logged out."""
    key_id = call(context, lambda exchange: exchange.admin.users.rotate_signing_key(reason=reason))
    if settings_of(context).as_json:
        print_json({"key_id": key_id})
    else:
        out.print(f"new key {key_id}")


def retire_signing_key(
    context: typer.Context,
    key_id: Annotated[
        str, typer.Argument(help="The kid of its tokens, as in /api/v1/auth/jwks.json; default: all there are.")
    ] = "",
    *,
    reason: RequiredReason,
) -> None:
    """Void a stolen key for access tokens: what it signed is refused within a second. Refresh tokens stay good."""
    found = call(context, lambda exchange: exchange.admin.users.retire_signing_key(key_id, reason=reason))
    if settings_of(context).as_json:
        print_json(found)
        return
    for one in found.retired_key_ids:
        out.print(f"void    {one}")
    out.print(f"signs   {found.key_id} from {render.plain(found.signs_from_time)} on")


def allow_certificate(
    context: typer.Context,
    subject_uri: Annotated[str, typer.Argument(help="spiffe://pincex/client/NAME")],
    account: Annotated[str, typer.Argument(help="On which it acts.")],
    *,
    scope: Annotated[list[str], typer.Option(help="read, trade, withdraw; repeat it for several.")],
    reason: Reason = "",
) -> None:
    """Let a client certificate act on an account over mTLS."""
    show_fields(
        context,
        call(
            context,
            lambda exchange: exchange.admin.users.allow_certificate(subject_uri, account, scope, reason=reason),
        ),
    )


def list_certificates(context: typer.Context) -> None:
    """Show certificates that are allowed."""
    found = call(context, lambda exchange: exchange.admin.users.certificates())
    _table(
        context,
        found,
        ("certificate", "account", "scopes"),
        lambda one: (one.subject_uri, one.account, ",".join(scope.lower() for scope in one.scopes)),
    )


def remove_certificate(
    context: typer.Context, subject_uri: Annotated[str, typer.Argument()], *, reason: Reason = ""
) -> None:
    """Refuse a certificate again."""
    call(context, lambda exchange: exchange.admin.users.remove_certificate(subject_uri, reason=reason))
    if settings_of(context).as_json:
        print_json({"removed": subject_uri})
    else:
        out.print(f"{subject_uri} is refused from now on")


def _show_user(context: typer.Context, found: identity.User) -> None:
    """For people a lock without an end has words in place of a time in the year 9999."""
    words: dict[str, Any] = {"locked_until_unlocked": None}
    if found.locked_until_unlocked:
        words["locked_until_time"] = "until unlocked"
    show_fields(context, found, instead=words)


def _table(context: typer.Context, found: list[Any], columns: tuple[str, ...], row: Any) -> None:
    if settings_of(context).as_json:
        print_json(found)
    else:
        out.print(render.table(columns, [row(one) for one in found]))


GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "accounts": (
        "Locked accounts and suspicious log-ins.",
        {
            "locked": locked,
            "unlock": unlock,
            "lock": lock,
            "failed-attempts": failed,
            "many-addresses": many_addresses,
            "logout": log_out,
        },
    ),
    "users": (
        "Users, their roles and tiers.",
        {"list": list_users, "show": show_user, "set-roles": set_roles, "set-tier": set_tier},
    ),
    "certificates": (
        "Client certificates that act on accounts.",
        {"allow": allow_certificate, "list": list_certificates, "remove": remove_certificate},
    ),
}
