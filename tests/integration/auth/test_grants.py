"""What each role of the database may see of identities: the auth service everything, all others what they follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.postgres_fixture import Database

SECRET_TABLES: tuple[LiteralString, ...] = (
    "users",
    "recovery_codes",
    "mail_codes",
    "sub_accounts",
    "user_sessions",
    "refresh_tokens",
    "failed_login_attempts",
    "api_keys",
    "certificates",
    "request_nonces",
    "request_nonce_epoch",
)


@pytest.mark.parametrize("table", SECRET_TABLES)
def test_the_engine_sees_nothing_of_who_its_users_are(database: Database, table: LiteralString) -> None:
    with psycopg.connect(database.trading_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT 1 FROM {table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"DELETE FROM {table}")


def test_the_engine_follows_revocations_and_public_keys_and_changes_neither(database: Database) -> None:
    with psycopg.connect(database.trading_url, autocommit=True) as connection:
        connection.execute("SELECT sequence, kind, subject, accounts, cancel_orders FROM auth_revocations")
        connection.execute("SELECT key_id, public_jwk, created_at, signs_from, retired_at FROM auth_signing_keys")
        forbidden: tuple[LiteralString, ...] = (
            "SELECT private_key FROM auth_signing_keys",
            "SELECT * FROM auth_signing_keys",
            "DELETE FROM auth_signing_keys",
            "DELETE FROM auth_revocations",
            "SELECT auth_revoke('user', '1', 1, '1', '{}', false, '')",
            "SELECT nextval('users_user_id_seq')",
        )
        for statement in forbidden:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_auth_service_revokes_takes_nothing_back_and_sees_nothing_of_the_engine(database: Database) -> None:
    with psycopg.connect(database.auth_url, autocommit=True) as connection:
        revoked = connection.execute("SELECT auth_revoke('user', '1', 2, '1', '{}', false, 'a test')").fetchone()
        assert revoked == (1,)
        forbidden: tuple[LiteralString, ...] = (
            "UPDATE auth_revocations SET generation = 0",
            "DELETE FROM auth_revocations",
            "DELETE FROM users",
            "SELECT * FROM journal_fence",
        )
        for statement in forbidden:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_a_lock_says_what_it_stops(database: Database) -> None:
    with (
        psycopg.connect(database.auth_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute("INSERT INTO users (email, password_hash, locked_at) VALUES ('a@b', '', now())")
