"""The runbooks' "Authentication & Security", command by command as docs/RUNBOOKS.md prints it, with users who are really
locked out, seen from many addresses, or robbed of a key.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from exchange.stack.postgresql.place import wheel_binaries
from pincex_client.signing import HmacSigner
from tests.document_shell import DocumentShell
from tests.edge_http import Answer, call
from tests.stack_fixture import eventually
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.stack_fixture import ExchangeStack

STEPS = {example.name: example for example in examples(document("docs/RUNBOOKS.md"))}
PASSWORD = "correct horse battery staple"
LOCK_ATTEMPTS = 10
REVOKED_WITHIN_S = 2.0


@dataclass
class Customer:
    """Somebody who registered over REST and proved the address with the code from the mailbox."""

    stack: ExchangeStack
    email: str

    def post(self, path: str, body: Mapping[str, object], token: str = "") -> Answer:
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
        return call(f"{self.stack.edge_url}{path}", "POST", json.dumps(body), headers)

    def register(self) -> None:
        assert self.post("/api/v1/auth/register", {"email": self.email, "password": PASSWORD}).status == 200
        eventually(lambda: self._code() is not None, "the mail is in the mailbox")
        assert self.post("/api/v1/auth/verify-email", {"email": self.email, "code": self._code()}).status == 200

    def log_in(self, password: str = PASSWORD) -> Answer:
        return self.post("/api/v1/auth/login", {"email": self.email, "password": password})

    def token(self) -> str:
        return str(self.log_in().json()["access_token"])

    def _code(self) -> str | None:
        for file in (self.stack.home / "mailbox").glob("*.eml"):
            text = file.read_text()
            if f"To: {self.email}\n" in text:
                return str(re.findall(r"^(\d{8}) is your code", text, re.MULTILINE)[0])
        return None


@pytest.fixture
def customer(exchange_stack: ExchangeStack) -> Iterator[Customer]:
    """A user of the test's own; afterwards nothing that it did counts against the address of all tests."""
    user = Customer(exchange_stack, f"runbook-{time.time_ns()}@example.com")
    user.register()
    yield user
    let_pass(exchange_stack, 3_600)


def let_pass(stack: ExchangeStack, seconds: float) -> None:
    """Failed attempts were so much earlier; Valkey remembers none of them."""
    with psycopg.connect(str(stack.admin_database_url), autocommit=True) as connection:
        connection.execute(
            "UPDATE failed_login_attempts SET attempt_time = attempt_time - make_interval(secs => %s)", (seconds,)
        )
    with redis.Redis.from_url(stack.redis_url) as valkey:
        valkey.flushall()


def types(stack: ExchangeStack, step: str, **variables: str) -> str:
    """Run a step of the document; answers what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(wheel_binaries()), os.environ["PATH"]])
    return DocumentShell(stack.folder, stack.home.parent, {"PATH": path, **variables}).type(STEPS[step])


def test_who_was_locked_out_is_found_and_let_in_again(exchange_stack: ExchangeStack, customer: Customer) -> None:
    refused = 0
    while refused < LOCK_ATTEMPTS:
        answer = customer.log_in("wrong password")
        if answer.status == 429:
            let_pass(exchange_stack, 60)
        else:
            assert answer.reason() == "CREDENTIALS_REFUSED"
            refused += 1
    assert customer.log_in().reason() == "TOO_MANY_ATTEMPTS"
    assert customer.email in types(exchange_stack, "locked-accounts")
    assert customer.email in types(exchange_stack, "unlock-account")
    assert customer.log_in().status == 200
    types(exchange_stack, "failed-attempts")


def test_who_comes_from_many_addresses_is_found_and_stopped(exchange_stack: ExchangeStack, customer: Customer) -> None:
    refresh = [customer.log_in().json()["refresh_token"] for _ in range(4)]
    # One machine has one address here.
    with psycopg.connect(str(exchange_stack.admin_database_url), autocommit=True) as connection:
        connection.execute(
            "UPDATE user_sessions s SET ip_address = n.address FROM (SELECT session_id, "
            "('203.0.113.' || row_number() OVER ())::inet AS address FROM user_sessions JOIN users USING (user_id) "
            "WHERE email = %s) n WHERE s.session_id = n.session_id",
            (customer.email,),
        )
    types(exchange_stack, "many-addresses")
    types(exchange_stack, "stop-user")
    assert customer.post("/api/v1/auth/refresh", {"refresh_token": refresh[0]}).reason() == "CREDENTIAL_REVOKED"
    assert customer.log_in().reason() == "ACCOUNT_LOCKED"


def test_a_compromised_key_is_revoked_and_its_uses_are_found(exchange_stack: ExchangeStack, customer: Customer) -> None:
    body = {"label": "bot", "scopes": ["READ"], "request_id": "runbook"}
    made = customer.post("/api/v1/account/api-keys", body, customer.token()).json()
    signer = HmacSigner(made["key"]["api_key"], base64.b64decode(made["secret"]))

    def used() -> Answer:
        path = "/api/v1/balances"
        return call(f"{exchange_stack.edge_url}{path}", "GET", None, signer.rest_headers("GET", path))

    assert used().status == 200
    types(exchange_stack, "revoke-api-key", api_key=signer.api_key)
    eventually(lambda: used().status == 401, "the key is refused", REVOKED_WITHIN_S)

    def refused_at_the_gate() -> bool:
        """The engine may be the first that knows; a moment later the edge does not let the key through to it."""
        return used().status == 401 and "api key refused" in exchange_stack.folder.log("auth-service-1")

    eventually(refused_at_the_gate, "the gate refuses the key", REVOKED_WITHIN_S)
    types(exchange_stack, "api-key-uses", api_key=signer.api_key)


def test_a_stolen_signing_key_is_void_and_sessions_go_on(exchange_stack: ExchangeStack, customer: Customer) -> None:
    tokens = customer.log_in().json()

    def asks(token: str) -> Answer:
        return call(f"{exchange_stack.edge_url}/api/v1/balances", "GET", None, {"authorization": f"Bearer {token}"})

    def refreshes() -> Answer:
        return customer.post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})

    assert asks(tokens["access_token"]).status == 200
    types(exchange_stack, "retire-signing-key")
    eventually(lambda: asks(tokens["access_token"]).status == 401, "the token is refused", REVOKED_WITHIN_S)
    renewed: list[Answer] = []

    def renew() -> bool:
        renewed.append(refreshes())
        return renewed[-1].status == 200

    eventually(renew, "another key signs", 20.0)
    # By then the edge knows it.
    assert asks(renewed[-1].json()["access_token"]).status == 200
