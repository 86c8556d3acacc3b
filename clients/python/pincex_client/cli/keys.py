"""`pincex keys`: API keys for programs."""

import base64
import secrets
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from pincex_client import identity
from pincex_client.cli import profiles, render
from pincex_client.cli.context import call, confirm, out, print_json, settings_of, show_fields, usage_error
from pincex_client.cli.spans import span
from pincex_client.signing import Ed25519Signer


def build() -> typer.Typer:
    """Make the group."""
    group = typer.Typer(help="API keys for programs: made, listed, revoked.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_keys)
    group.command("show")(show)
    group.command("revoke")(revoke)
    return group


def create(
    context: typer.Context,
    label: Annotated[str, typer.Argument(help="For people.")],
    *,
    scope: Annotated[list[str], typer.Option(help="read, trade, withdraw, admin; repeat it for several.")],
    address: Annotated[list[str] | None, typer.Option(help="Only from this address or network; repeatable.")] = None,
    ed25519: Annotated[
        bool, typer.Option("--ed25519", help="Make a key pair here; the exchange never sees the private half.")
    ] = False,
    account: Annotated[str, typer.Option("--for-account", help="A sub-account; default: the main one.")] = "",
    expires_in: Annotated[str, typer.Option(help="Such as 90d or 12h; default: never.")] = "",
    cancel_on_revoke: Annotated[
        bool, typer.Option("--cancel-on-revoke", help="Cancel what it has open when it is revoked.")
    ] = False,
    max_orders_per_second: Annotated[int, typer.Option(min=0, help="0: the tier's.")] = 0,
    max_open_orders: Annotated[int, typer.Option(min=0, help="0: the tier's.")] = 0,
    code: Annotated[str, typer.Option(help="Of the second factor, where it is on.")] = "",
    save_as: Annotated[str, typer.Option(help="Keep key and secret as a profile of this name.")] = "",
    request_id: Annotated[str, typer.Option(help="Makes the call repeatable.")] = "",
) -> None:
    """Make a key. Its secret is shown once, or goes into a profile with --save-as."""
    settings = settings_of(context)
    private_key, public_key = _new_pair() if ed25519 else ("", "")
    made: identity.NewApiKey = call(
        context,
        lambda exchange: exchange.auth.create_api_key(
            label,
            scope,
            public_key=public_key,
            allowed_addresses=address or (),
            account=account,
            cancel_orders_on_revoke=cancel_on_revoke,
            max_orders_per_second=max_orders_per_second,
            max_open_orders=max_open_orders,
            expire_time=datetime.now(UTC) + span(expires_in) if expires_in else None,
            code=code,
            request_id=request_id,
        ),
    )
    material = private_key or made.secret
    if save_as:
        if not material:
            usage_error(settings, "this key was made before, and its secret is not shown again")
        where, ops = settings.place()
        algorithm = made.key.algorithm
        profile = profiles.Profile(
            name=save_as,
            target=where,
            ops_target=ops,
            account=made.key.account,
            api_key=made.key.api_key,
            algorithm=algorithm,
            key_material=material,
        )
        file = profiles.save(profile)
        shown = {"key": made.key, "profile": save_as, "file": str(file)}
    else:
        shown = {"key": made.key, "private_key" if ed25519 else "secret": material}
    if settings.as_json:
        print_json(shown)
        return
    show_fields(context, made.key)
    if save_as:
        out.print(f"\nkept as the profile {escape(save_as)}: pincex --profile {escape(save_as)} ...")
    elif material:
        what = "private key (base64)" if ed25519 else "secret (base64)"
        out.print(f"\n[bold]{what}[/bold], not shown again:\n{escape(material)}")


def list_keys(context: typer.Context, *, alive: Annotated[bool, typer.Option("--alive")] = False) -> None:
    """Show your keys, the newest first."""
    found = call(context, lambda exchange: exchange.auth.list_api_keys())
    keys = [key for key in found if not (alive and key.revoked_time)]
    if settings_of(context).as_json:
        print_json(keys)
        return
    rows = [
        (
            key.api_key,
            key.label,
            ",".join(scope.lower() for scope in key.scopes),
            key.account,
            render.plain(key.used_time),
            "revoked" if key.revoked_time else render.plain(key.expire_time),
        )
        for key in keys
    ]
    out.print(render.table(("key", "label", "scopes", "account", "last used", "expires"), rows))


def show(context: typer.Context, api_key: Annotated[str, typer.Argument(help="ak_...")]) -> None:
    """Show one key."""
    show_fields(context, call(context, lambda exchange: exchange.auth.get_api_key(api_key)))


def revoke(
    context: typer.Context,
    api_key: Annotated[str, typer.Argument(help="ak_...")],
    *,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
    cancel_orders: Annotated[bool, typer.Option("--cancel-orders", help="Cancel what it has open.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Revoke a key for good."""
    confirm(context, f"revoke {api_key} for good?", yes=yes)
    show_fields(
        context,
        call(
            context,
            lambda exchange: exchange.auth.revoke_api_key(api_key, reason=reason, cancel_orders=cancel_orders),
        ),
    )


def _new_pair() -> tuple[str, str]:
    """An Ed25519 pair, private and public half in base64."""
    private = secrets.token_bytes(32)
    return base64.b64encode(private).decode("ascii"), Ed25519Signer("", private).public_key
