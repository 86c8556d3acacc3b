"""The exchange's own market maker as a user: made once, with an API key that lies in the folder of secrets."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Final

import structlog

from exchange.auth import users
from exchange.auth.bootstrap import leave_secret
from exchange.auth.key_requests import KeyRequest
from exchange.auth.signatures import HMAC_SHA256

if TYPE_CHECKING:
    from pathlib import Path

    from exchange.auth.events import Events
    from exchange.auth.keys import ApiKeys
    from exchange.auth.passwords import Passwords
    from exchange.auth.store import Connection, Store

EMAIL: Final = "market-maker@localhost"
ROLES: Final = ("market_maker", "trader")
TIER: Final = "market_maker"
KEY_FILE: Final = "market-maker-key"
LABEL: Final = "market-maker"
MADE: Final = "user.market-maker-key-made"


async def make_market_maker(store: Store, passwords: Passwords, keys: ApiKeys, events: Events, folder: Path) -> bool:
    """Make user and key, if the market maker has no live key, and leave the key in `folder`; return whether it was made.

    The file holds `{"api_key": "ak_...", "secret": <base64>}`. Instances that start at once make one between them. The file is
    there before the key is: a crash in between leaves a key of nobody, which the next start writes over. Nobody knows the
    password. Raises ServiceError AUTH_UNAVAILABLE, PasswordNotLeft.
    """
    async with store.connection() as connection:
        if await _has_key(connection):
            return False
    password_hash = await passwords.hash(secrets.token_urlsafe(32))
    async with store.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('pincex.auth_bootstrap'))")
        if await _has_key(connection):
            return False
        user_id: int = await connection.fetchval(
            "INSERT INTO users (email, password_hash, email_verified, roles, tier) VALUES ($1, $2, true, $3, $4) "
            "ON CONFLICT (email) DO UPDATE SET password_hash = $2, email_verified = true, roles = $3, tier = $4 "
            "RETURNING user_id",
            EMAIL,
            password_hash,
            list(ROLES),
            TIER,
        )
        key, secret = await keys.add(connection, await users.by_id(connection, user_id, lock=True), _request())
        text = json.dumps({"api_key": key.api_key, "secret": base64.b64encode(secret).decode("ascii")})
        leave_secret(folder, KEY_FILE, text, "the market maker's key")
    await events.happened(MADE, user_id=user_id, address="", details={"email": EMAIL, "api_key": key.api_key})
    structlog.get_logger("bootstrap").warning("the market maker's key was made", user=user_id, file=KEY_FILE)
    return True


async def _has_key(connection: Connection) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM api_keys JOIN users USING (user_id) "
        "WHERE email = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()))",
        EMAIL,
    )
    return found


def _request() -> KeyRequest:
    return KeyRequest(
        label=LABEL,
        algorithm=HMAC_SHA256,
        scopes=("read", "trade"),
        allowed_addresses=(),
        account="",
        cancel_orders_on_revoke=True,
        max_orders_per_second=0,
        max_open_orders=0,
        expires_at=None,
        public_key=b"",
        # Unique for its user: a key that is made anew is another one.
        request_id=f"market-maker-{secrets.token_hex(8)}",
    )
