"""A full run of log-ins, keys, signed and refused requests and operators' calls leaves no secret in any file of the exchange.

The data folder is searched whole, PostgreSQL's files and Envoy's access log included. Not searched are the folders where
secrets belong: `secrets/`, and codes in the mailbox.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import psycopg
import pyotp
import pytest

from pincex.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from pincex_client.client import ExchangeClient
from pincex_client.credentials import Fixed, LogIn, TokenSet, token_set
from pincex_client.errors import ExchangeError
from pincex_client.signing import Ed25519Signer, HmacSigner, RequestSigner, decode_key
from tests.edge_http import Answer, call
from tests.integration.journal.waiting import until
from tests.stack_fixture import ExchangeStack, ProductionStack

JSON = {"content-type": "application/json"}
ORDER = json.dumps(
    {"symbol": "XYZUSD", "side": "BUY", "order_type": "LIMIT", "price": "30000", "quantity": "0.01"}
).encode()
# Where secrets belong. Codes stand in the mailbox, keys of certificates and what opens stores in the others.
KEPT_APART = frozenset({"secrets", "mailbox", "certificates"})


@dataclass
class Secrets:
    """What was planted, by what it is."""

    planted: dict[str, str] = field(default_factory=dict)

    def plant(self, what: str, value: str = "") -> str:
        """Remember a secret, a new one where none is given."""
        value = value or f"planted-{secrets.token_urlsafe(18)}"
        assert len(value) >= 6, what
        self.planted[what] = value
        return value

    def plant_tokens(self, what: str, tokens: TokenSet) -> None:
        """An access token is told by its signature: header and claims are no secret, and may repeat."""
        self.plant(f"access token of {what}", tokens.access_token.rpartition(".")[2])
        self.plant(f"refresh token of {what}", tokens.refresh_token)

    def needles(self) -> list[tuple[str, re.Pattern[bytes]]]:
        """Each secret as it may have been written: plain, quoted, in base64 and in hexadecimal."""
        return [(what, _pattern(value)) for what, value in self.planted.items()]


def _pattern(value: str) -> re.Pattern[bytes]:
    if value.isdigit():
        # Among longer numbers it would be found by chance.
        return re.compile(rb"(?<!\d)" + value.encode() + rb"(?!\d)")
    forms = {value, quote(value, safe=""), base64.b64encode(value.encode()).decode().rstrip("="), value.encode().hex()}
    with contextlib.suppress(ValueError):
        # The bytes of a key that is shown in base64.
        forms.add(decode_key(value).hex())
    return re.compile(b"|".join(re.escape(form.encode()) for form in sorted(forms)))


def found_in(folder: Path, needles: list[tuple[str, re.Pattern[bytes]]]) -> tuple[list[str], list[str]]:
    """Where a secret stands, and which files were searched."""
    found, searched = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in KEPT_APART or path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):
            # PostgreSQL removes files of its own while we look.
            data = path.read_bytes()
            searched.append(str(name))
            found += [f"{what} in {name}" for what, needle in needles if needle.search(data)]
    return found, searched


class Run:
    """Everything that people and programs do with secrets."""

    def __init__(self, stack: ExchangeStack) -> None:
        self.stack = stack
        self.secrets = Secrets()
        # What people write into free text stands in the row that has it; logs and the audit trail leave it out.
        self.pasted = Secrets()
        self.email = f"{secrets.token_hex(6)}@example.com"
        self.password = self.secrets.plant("password")
        self.spare_codes: list[str] = []

    def client(self, tokens: TokenSet | None = None, token: str = "") -> ExchangeClient:
        credentials: Any = LogIn(tokens) if tokens is not None else Fixed(token=token or None)
        return ExchangeClient(self.stack.edge_address, ops_target=self.stack.ops_address, credentials=credentials)

    async def mailed_code(self) -> str:
        """The code in the mail to our address."""

        def codes() -> list[str]:
            mails = [mail.read_text() for mail in (self.stack.home / "mailbox").glob("*.eml")]
            return [
                code for mail in mails if self.email in mail for code in re.findall(r"^(\d{8})\b", mail, re.MULTILINE)
            ]

        await until(lambda: bool(codes()))
        return codes()[0]

    async def register(self) -> None:
        async with self.client() as exchange:
            await exchange.auth.register(self.email, self.password)
            code = self.secrets.plant("mail code", await self.mailed_code())
            await exchange.auth.verify_email(self.email, code)

    async def refused(self, work: Any, reason: str = "") -> None:
        with pytest.raises(ExchangeError) as caught:
            await work
        assert reason in {"", caught.value.reason}

    async def log_in(self) -> TokenSet:
        """With everything that goes wrong on the way, and a second factor at the end."""
        plant = self.secrets.plant
        async with self.client() as exchange:
            await self.refused(exchange.auth.log_in(self.email, plant("wrong password")), "CREDENTIALS_REFUSED")
            # People type their password where the name belongs.
            await self.refused(exchange.auth.log_in(plant("password typed as the name"), "x" * 12))
            tokens = await exchange.auth.log_in(self.email, self.password)
        self.secrets.plant_tokens("the first log-in", tokens)
        async with self.client(tokens) as exchange:
            secret, _ = await exchange.auth.begin_second_factor(self.password)
            recovery = await exchange.auth.confirm_second_factor(pyotp.TOTP(plant("TOTP secret", secret)).now())
            self.spare_codes = list(recovery[1:])
            for number, code in enumerate(recovery):
                plant(f"recovery code {number}", code)
            await self.refused(exchange.auth.begin_second_factor(plant("wrong password again")))
        async with self.client() as exchange:
            await self.refused(exchange.auth.log_in(self.email, self.password), "SECOND_FACTOR_REQUIRED")
            tokens = await exchange.auth.log_in(self.email, self.password, code=recovery[0])
        self.secrets.plant_tokens("the log-in by recovery code", tokens)
        return tokens

    async def refresh(self, tokens: TokenSet) -> TokenSet:
        """With a refresh token that never was, and with ours."""
        async with self.client() as exchange:
            stub: Any = auth_service_pb2_grpc.AuthServiceStub(exchange.channel)
            invented = auth_service_pb2.RefreshTokensRequest(refresh_token=self.secrets.plant("invented refresh token"))
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.RefreshTokens(invented)
            ours = auth_service_pb2.RefreshTokensRequest(refresh_token=tokens.refresh_token)
            renewed = token_set(await stub.RefreshTokens(ours))
        self.secrets.plant_tokens("the refresh", renewed)
        return renewed

    async def use_keys(self, tokens: TokenSet) -> None:
        """Signed requests that are right, and every kind that is not."""
        pair = Ed25519Signer("ak_" + "x" * 32, secrets.token_bytes(32))
        async with self.client(tokens) as exchange:
            made = await exchange.auth.create_api_key("bot", ["READ", "TRADE"], code=self.spare_codes.pop())
            other = await exchange.auth.create_api_key(
                "pair", ["READ", "TRADE"], public_key=pair.public_key, code=self.spare_codes.pop()
            )
        self.secrets.plant("API secret", made.secret)
        signer = HmacSigner(made.key.api_key, decode_key(made.secret))
        pair.api_key = other.key.api_key
        # No such market: the order is refused by the engine, and the signature is not.
        assert self.signed(signer).reason() == "UNKNOWN_SYMBOL"
        assert self.signed(pair).reason() == "UNKNOWN_SYMBOL"
        assert self.signed(signer, **{"x-pincex-signature": self.secrets.plant("signature")}).status == 401
        # A secret where the public id belongs.
        assert self.signed(signer, **{"x-api-key": made.secret}).status == 401
        assert self.signed(signer, **{"x-pincex-nonce": self.secrets.plant("what is no nonce")}).status == 401
        async with self.client(tokens) as exchange:
            await exchange.auth.revoke_api_key(made.key.api_key, reason="done")
        await until(lambda: self.signed(signer).status == 401)

    async def call_with_wrong_tokens(self, tokens: TokenSet) -> None:
        """In headers and where they do not belong."""
        plant, token = self.secrets.plant, tokens.access_token
        forged = f"{token.rpartition('.')[0]}.{plant('forged signature')}"
        for wrong in (plant("invented token"), forged):
            answer = call(f"{self.stack.edge_url}/api/v1/orders", headers={"authorization": f"Bearer {wrong}"})
            assert answer.status == 401, answer.text
        basic = base64.b64encode(f"ann:{plant('password of basic authentication')}".encode()).decode()
        self.secrets.plant("basic authentication", basic)
        call(f"{self.stack.edge_url}/api/v1/orders", headers={"authorization": f"Basic {basic}"})
        query = f"access_token={token}&password={plant('password in a query')}"
        call(f"{self.stack.edge_url}/api/v1/orders?{query}")
        call(
            f"{self.stack.edge_url}/api/v1/auth/login",
            "POST",
            f'{{"password": "{plant("password in broken JSON")}"',
            JSON,
        )
        call(f"{self.stack.ops_url}/admin/audit/records?actor=x&password={plant('password on the ops listener')}")

    async def operate(self, email: str, password: str, user_id: str) -> None:
        """As the first operator, over the ops listener."""
        self.secrets.plant("the operator's password", password)
        async with self.client() as exchange:
            tokens = await exchange.auth.log_in(email, password, scopes=["READ", "MANAGE", "ADMIN"])
        self.secrets.plant_tokens("the operator", tokens)
        async with self.client(tokens) as exchange:
            users = exchange.admin.users
            await users.lock(user_id, reason=f"Bearer {self.pasted.plant('token pasted into a reason')}")
            await users.unlock(user_id, reason="it was us")
            await users.log_out(user_id, reason="again", revoke_api_keys=True)
            await self.refused(users.unlock("999999999", reason="nobody"))

    async def end(self, tokens: TokenSet) -> None:
        """A refresh token that was used, and a new password."""
        async with self.client(tokens) as exchange:
            with contextlib.suppress(ExchangeError):
                await exchange.auth.change_password(self.password, self.secrets.plant("new password"))

    def signed(self, signer: RequestSigner, **headers: str) -> Answer:
        path = "/api/v1/orders"
        made = {**signer.rest_headers("POST", path, ORDER), **JSON, **headers}
        return call(f"{self.stack.edge_url}{path}", "POST", ORDER, made)


async def test_a_full_run_leaves_no_secret_in_any_file(production_stack: ProductionStack) -> None:
    stack = production_stack.exchange
    # All requests into the access log, not failures alone.
    assert call(f"{stack.envoy_admin_url}/runtime_modify?edge.access_log_status=0", "POST").status == 200
    run = Run(stack)
    await run.register()
    tokens = await run.log_in()
    await run.call_with_wrong_tokens(tokens)
    await run.use_keys(tokens)
    renewed = await run.refresh(tokens)
    await run.end(renewed)
    await run.operate(production_stack.email, production_stack.password, tokens.user_id)
    logs = stack.home / "logs"
    # What has happened is in the logs by now, so that a secret would be too.
    await until(lambda: tokens.user_id in (logs / "security.log").read_text())
    await until(lambda: "LockAccount" in (logs / "audit.log").read_text())
    await until(lambda: "/api/v1/auth/login" in (logs / "envoy-access.log").read_text())
    assert stack.admin_database_url is not None
    with psycopg.connect(stack.admin_database_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        trail = "\n".join(str(row) for row in connection.execute("SELECT * FROM audit_records").fetchall())
    assert "AuthAdminService/LockAccount" in trail
    needles = run.secrets.needles()
    pasted = run.pasted.needles()
    assert [what for what, needle in needles + pasted if needle.search(trail.encode())] == []
    assert found_in(logs, pasted)[0] == []
    found, searched = found_in(stack.home, needles)
    assert {"logs/audit.log", "logs/security.log", "logs/envoy-access.log", "logs/auth-service-1.log"} <= set(searched)
    assert any("pg_wal" in name for name in searched)
    assert found == []


def test_what_opens_stores_and_services_is_in_no_log(production_stack: ProductionStack) -> None:
    stack = production_stack.exchange
    kept = Secrets()
    for path in (stack.home / "secrets").iterdir():
        kept.plant(path.name, path.read_text().strip())
    assert {"jwt", "auth", "postgres-admin", "postgres-auth_user", "postgres-audit_user"} <= kept.planted.keys()
    found, searched = found_in(stack.home / "logs", kept.needles())
    assert len(searched) > 5
    assert found == []


def test_a_secret_would_be_found(tmp_path: Path) -> None:
    planted = Secrets()
    secret = base64.b64encode(b"k" * 32).decode()
    planted.plant("key", secret)
    planted.plant("code", "12345678")
    for name, text in {
        "plain": f"x{secret}y",
        "hex": (b"k" * 32).hex(),
        "quoted": quote(secret, safe=""),
        "code": "code=12345678.",
        "other": "4123456789",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text(secret)
    found, searched = found_in(tmp_path, planted.needles())
    assert found == ["code in code", "key in hex", "key in plain", "key in quoted"]
    assert "secrets/key" not in searched
