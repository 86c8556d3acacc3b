"""What each role of the database may see of identities: the auth service everything, all others what they follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

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


MAY = {
    "audit_user": {"audit_anchor": "S", "audit_records": "S", "auth_revocations": "S", "auth_signing_keys": "s"},
    "trading_user": {
        "auth_revocations": "S",
        "auth_signing_keys": "s",
        "candles": "S",
        "journal_fence": "SIU",
        "journal_floor": "S",
        "journal_frames": "SI",
        "journal_incarnation": "S",
        "journal_lease": "SIU",
        "journal_snapshots": "SI",
    },
    "market_data_user": {
        "auth_revocations": "S",
        "auth_signing_keys": "s",
        "candles": "SIu",
        "latest_prices": "SIU",
        "market_data_offset": "SIu",
        "market_data_state": "SIU",
        "trades": "s",
    },
    "websocket_user": {"auth_revocations": "S", "auth_signing_keys": "s"},
}
"""By table: S select, I insert, U update, D delete; in small letters of some columns. Of other roles see below."""
OTHERS = {
    "auth_user": "api_keys auth_ certificates failed_login_ mail_codes recovery_codes refresh_tokens request_nonce sub_accounts user",
    "settlement_user": "assets auth_ balances fills ledger_ markets orders settlement_ trades",
    "wallet_user": "auth_ kyc_ sim_ wallet_ withdrawal",
    "market_maker_user": "auth_ market_maker_",
}
"""How the names of the tables begin of which they see anything."""


def privileges(connection: psycopg.Connection[Any], role: str) -> dict[str, str]:
    """As in MAY."""
    found: dict[str, str] = {}
    for (table,) in connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    ).fetchall():
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"):
            whole, some = connection.execute(
                "SELECT has_table_privilege(%s, %s::regclass, %s), CASE WHEN %s IN ('SELECT', 'INSERT', 'UPDATE') "
                "THEN has_any_column_privilege(%s, %s::regclass, %s) END",
                (
                    role,
                    table,
                    right,
                    right,
                    role,
                    table,
                    right if right in ("SELECT", "INSERT", "UPDATE") else "SELECT",
                ),
            ).fetchone() or (False, False)
            letter = right if right.startswith("T") else right[0]
            if whole or some:
                found[table] = found.get(table, "") + (letter if whole else letter.lower())
    return found


def test_what_each_role_may_do_with_each_table(database: Database) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        for role, expected in MAY.items():
            assert privileges(connection, role) == expected, role
        for role, prefixes in OTHERS.items():
            found = privileges(connection, role)
            assert all(table.startswith(tuple(prefixes.split())) for table in found), (role, found)
            assert not [table for table, rights in found.items() if "T" in rights], role
            # The rest of auth is the auth service's; the ledger, withdrawals and KYC decisions are never removed.
            assert role == "auth_user" or found["auth_revocations"] + found["auth_signing_keys"] == "Ss"
            removable = {table for table, rights in found.items() if "D" in rights}
            assert not [
                table for table in removable if table.startswith(("ledger_", "kyc_", "wallet_", "withdrawal", "trades"))
            ]
        for role in (*MAY, *OTHERS):
            (sequences,) = connection.execute(
                "WITH s AS MATERIALIZED (SELECT format('%%I.%%I', schemaname, sequencename) AS name FROM pg_sequences) "
                "SELECT count(*) FROM s WHERE has_sequence_privilege(%s, name, 'USAGE')",
                (role,),
            ).fetchone() or (None,)
            assert sequences == 0, role


def test_a_lock_says_what_it_stops(database: Database) -> None:
    with (
        psycopg.connect(database.auth_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute("INSERT INTO users (email, password_hash, locked_at) VALUES ('a@b', '', now())")
