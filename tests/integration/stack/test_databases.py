"""PostgreSQL and Valkey as the stack provides them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from exchange.stack.files import secret
from exchange.stack.postgresql import roles

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack


def admin_url(stack: ExchangeStack) -> str:
    assert stack.admin_database_url is not None
    return stack.admin_database_url


def trading_url(stack: ExchangeStack) -> str:
    assert stack.database_url is not None
    return stack.database_url


def test_nobody_may_use_a_table_that_was_not_granted_or_make_one(fake_stack: ExchangeStack) -> None:
    with psycopg.connect(admin_url(fake_stack), autocommit=True) as connection:
        connection.execute("CREATE TABLE owned (n int)")
        connection.execute("CREATE SEQUENCE numbered")
    with psycopg.connect(trading_url(fake_stack), autocommit=True) as connection:
        for forbidden in (
            "CREATE TABLE mine (n int)",
            "SELECT * FROM owned",
            "INSERT INTO owned VALUES (1)",
            "TRUNCATE owned",
            "SELECT nextval('numbered')",
            "CREATE ROLE other",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)


def test_the_roles_have_what_the_runbooks_need_and_no_more(fake_stack: ExchangeStack) -> None:
    with psycopg.connect(admin_url(fake_stack)) as connection:
        rows = connection.execute(
            "SELECT rolname, rolsuper, rolreplication, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolcanlogin",
        ).fetchall()
        extensions = connection.execute("SELECT extname FROM pg_extension").fetchall()
        connection.execute("SELECT count(*) FROM pg_stat_statements")

    assert {row[0]: row[1:] for row in rows} == {
        "admin": (True, True, True, True),
        "trading_user": (False, False, False, False),
        "auth_user": (False, False, False, False),
        "audit_user": (False, False, False, False),
        "settlement_user": (False, False, False, False),
        "wallet_user": (False, False, False, False),
        "market_data_user": (False, False, False, False),
        "market_maker_user": (False, False, False, False),
        "websocket_user": (False, False, False, False),
        "replication_user": (False, True, False, False),
    }
    assert ("pg_stat_statements",) in extensions


def test_the_replication_role_may_stream_the_log(fake_stack: ExchangeStack) -> None:
    password = secret(fake_stack.home / "secrets", "postgres-replication_user")
    port = fake_stack.instance("postgres")["ports"]["postgres"]
    options = f"host=127.0.0.1 port={port} user=replication_user password={password} replication=true"
    with psycopg.connect(options, autocommit=True) as connection:
        assert connection.execute("IDENTIFY_SYSTEM").fetchone() is not None


def test_nobody_gets_in_without_the_password(fake_stack: ExchangeStack) -> None:
    port = fake_stack.instance("postgres")["ports"]["postgres"]
    for role in (roles.ADMIN, *roles.SERVICES, roles.REPLICATION):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"host=127.0.0.1 port={port} user={role} password=guess dbname=pincex")
    with (
        pytest.raises(redis.exceptions.AuthenticationError),
        redis.Redis(
            port=fake_stack.instance("valkey")["ports"]["redis"],
        ) as cache,
    ):
        cache.ping()


def test_the_cache_answers_at_the_url_of_the_status(fake_stack: ExchangeStack) -> None:
    with redis.Redis.from_url(fake_stack.redis_url) as cache:
        cache.set("key", "value")
        assert cache.get("key") == b"value"


def test_secrets_are_for_their_owner_and_stand_in_no_log_and_no_command_line(fake_stack: ExchangeStack) -> None:
    files = list((fake_stack.home / "secrets").iterdir())
    assert {file.name for file in files} >= {
        "postgres-admin",
        "postgres-trading_user",
        "postgres-auth_user",
        "valkey",
        "jwt",
    }
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    secrets = [file.read_bytes() for file in files]

    for log in (fake_stack.home / "logs").iterdir():
        told = log.read_bytes()
        assert not [secret for secret in secrets if secret in told], log
    for service in fake_stack.status()["services"]:
        command = Path(f"/proc/{service['pid']}/cmdline").read_bytes()
        assert not [secret for secret in secrets if secret in command], service["name"]
    with psycopg.connect(admin_url(fake_stack)) as connection:
        statements = str(connection.execute("SELECT query FROM pg_stat_statements").fetchall())
    assert not [secret for secret in secrets if secret.decode() in statements]


def test_everything_listens_on_loopback_only(fake_stack: ExchangeStack) -> None:
    ports = {port for service in fake_stack.status()["services"] for port in service["ports"].values()}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and int(port, 16) in ports:
                listening.add(address)

    # 127.0.0.1, and the same as an IPv4-mapped IPv6 address, as the kernel prints them.
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert "0100007F" in listening


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must not run PostgreSQL")
def test_as_root_the_server_runs_as_another_user(fake_stack: ExchangeStack) -> None:
    pid = fake_stack.instance("postgres")["pid"]

    assert Path(f"/proc/{pid}").stat().st_uid != 0
