"""The first operator: made once, where nobody is an administrator, with a password that is shown once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import structlog

from exchange.auth.events import OPERATOR_MADE, Events
from exchange.auth.passwords import Passwords
from exchange.auth.store import Connection, Store
from exchange.auth.users import ADMIN

EMAIL: Final = "operator@localhost"
ROLES: Final = (ADMIN, "operator", "trader")
PASSWORD_FILE: Final = "operator-password"  # noqa: S105 - a file's name
_PASSWORD_BYTES: Final = 18


class PasswordNotLeft(Exception):
    """The folder of secrets cannot be written: nobody could ever log in as who was to be made."""


async def make_operator(store: Store, passwords: Passwords, events: Events, folder: Path) -> bool:
    """Make it and leave its password in `folder` for `pincex up`, if no user has the role admin; return whether it was.

    Instances that start at once make one between them. The file is there before the user is: a crash in between leaves a
    password of nobody, which the next start writes over. Raises ServiceError AUTH_UNAVAILABLE, PasswordNotLeft.
    """
    async with store.connection() as connection:
        if await _has_admin(connection):
            return False
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    password_hash = await passwords.hash(password)
    async with store.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('pincex.auth_bootstrap'))")
        if await _has_admin(connection):
            return False
        _write(folder, password)
        user_id = await connection.fetchval(
            "INSERT INTO users (email, password_hash, email_verified, roles) VALUES ($1, $2, true, $3) "
            "ON CONFLICT (email) DO UPDATE SET password_hash = $2, email_verified = true, roles = $3 RETURNING user_id",
            EMAIL,
            password_hash,
            list(ROLES),
        )
    await events.happened(
        OPERATOR_MADE, user_id=user_id, address="", details={"email": EMAIL, "roles": ",".join(ROLES)}
    )
    structlog.get_logger("bootstrap").warning("the operator's account was made", email=EMAIL, file=PASSWORD_FILE)
    return True


async def _has_admin(connection: Connection) -> bool:
    found: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM users WHERE $1 = ANY (roles))", ADMIN)
    return found


def _write(folder: Path, password: str) -> None:
    """Raises PasswordNotLeft."""
    leave_secret(folder, PASSWORD_FILE, password, "the first operator's password")


def leave_secret(folder: Path, name: str, text: str, what: str) -> None:
    """Whole or not at all, and for its owner alone from the first byte on. Raises PasswordNotLeft, naming `what`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = folder / f".{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(folder / name)
    except OSError as error:
        raise PasswordNotLeft(f"{what} cannot be left in {folder}: {error.strerror}") from error
