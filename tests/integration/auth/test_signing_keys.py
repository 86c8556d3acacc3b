"""Signing keys: one set for all instances, known before they sign, and gone only when nothing needs them any more."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import psycopg
import pytest
from prometheus_client import CollectorRegistry

from exchange.auth import signing_keys
from exchange.auth.encryption import Keyring
from exchange.auth.metrics import AuthMetrics
from exchange.auth.signing_keys import PUBLISH_AHEAD_S, REPLACE_AHEAD_S, VERIFY_SLACK_S, SigningKeys, WrongSecret
from exchange.auth.store import Store
from exchange.auth.tokens import Grant, TokenMaker
from exchange.auth.users import User
from exchange.runtime.clock import ManualClock
from exchange.runtime.config import Secret
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity import keys as runtime_keys
from exchange.runtime.identity.verifier import TokenVerifier, UnknownKey
from pincex.auth.v1 import auth_admin_service_pb2, user_service_pb2
from tests.integration.auth.auth_app import bearer, eventually, refused, running_auth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.postgres_fixture import Database

SECRET = Secret("a secret of thirty-two characters and more")
LIFETIME_S, ROTATION_S = 300, 30 * 86_400


@dataclass
class Instance:
    """Keys and tokens of one auth service."""

    keys: SigningKeys
    tokens: TokenMaker


@dataclass
class World:
    """Instances that share a database and a clock, and a server that verifies with the set that one of them publishes."""

    database: Database
    store: Store
    clock: ManualClock

    def instance(self, secret: Secret = SECRET) -> Instance:
        metrics = AuthMetrics(CollectorRegistry())
        keys = SigningKeys(
            self.store, Keyring(secret), self.clock, metrics, rotation_s=ROTATION_S, token_lifetime_s=LIFETIME_S
        )
        return Instance(keys, TokenMaker(keys, self.clock, metrics, LIFETIME_S))

    def count(self) -> int:
        with psycopg.connect(self.database.admin_url) as connection:
            row = connection.execute("SELECT count(*) FROM auth_signing_keys").fetchone()
        assert row is not None
        return int(row[0])

    def revoked(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.admin_url) as connection:
            query = "SELECT kind, subject, user_id, reason FROM auth_revocations ORDER BY sequence"
            return connection.execute(query).fetchall()

    async def verifies(self, published_by: Instance, token: str) -> bool:
        """Whether a server of the exchange takes the token, knowing just that set."""
        found = {key["kid"]: json.dumps(key) for key in key_set(published_by)}

        async def load() -> dict[str, str]:
            return found

        known = runtime_keys.SigningKeys(load, self.clock)
        await known.refresh()
        try:
            principal = TokenVerifier(known, self.clock).verify(token)
        except UnknownKey:
            return False
        assert principal.user == "100001"
        return True


def key_set(instance: Instance) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(instance.keys.key_set())["keys"]
    return found


def kid(token: str) -> str:
    found: str = jwt.get_unverified_header(token)["kid"]
    return found


def token_of(instance: Instance, clock: ManualClock, **more: Any) -> str:
    user = User(100_001, "a@example.com", "", True, ("trader",), "standard", 1, False, None, None, "", "", None)  # type: ignore[arg-type]  # nobody looks
    grant = Grant(user=user, account="100001", scopes=("read",), **(more or {"session": "ses_1"}))
    return instance.tokens.make(grant).text


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    store = await Store.open(database.auth_url)
    yield World(database, store, ManualClock())
    await store.close()


async def test_the_first_key_signs_at_once_and_all_instances_share_it(world: World) -> None:
    instances = [world.instance() for _ in range(4)]
    await asyncio.gather(*(each.keys.refresh() for each in instances))
    assert world.count() == 1
    tokens = [token_of(each, world.clock) for each in instances]
    assert len({kid(token) for token in tokens}) == 1
    for token in tokens:
        assert await world.verifies(instances[0], token)


async def test_a_token_is_taken_by_the_verifier_of_every_service_with_what_it_says(world: World) -> None:
    instance = world.instance()
    await instance.keys.refresh()

    async def load() -> dict[str, str]:
        return {key["kid"]: json.dumps(key) for key in key_set(instance)}

    known = runtime_keys.SigningKeys(load, world.clock)
    await known.refresh()
    token = token_of(
        instance, world.clock, api_key="ak_1", ends_at=2_000_000_000, max_orders_per_second=7, max_open_orders=9
    )
    principal = TokenVerifier(known, world.clock).verify(token)
    assert (principal.user, principal.account, principal.api_key) == ("100001", "100001", "ak_1")
    assert (principal.session, principal.certificate, principal.source) == ("", "", "api-key")
    assert (set(principal.scopes), set(principal.roles), principal.tier) == ({"read"}, {"trader"}, "standard")
    assert (principal.generation, principal.ends_at) == (1, 2_000_000_000)
    assert (principal.max_orders_per_second, principal.max_open_orders) == (7, 9)
    world.clock.advance(LIFETIME_S + 6)
    with pytest.raises(ServiceError) as caught:
        TokenVerifier(known, world.clock).verify(token)
    assert caught.value.reason == ErrorReason.TOKEN_EXPIRED


async def test_a_token_expires_with_the_key_or_session_that_it_stands_for(world: World) -> None:
    instance = world.instance()
    await instance.keys.refresh()
    ends_at = world.clock.time_ns() // 1_000_000_000 + 60
    claims = jwt.decode(
        token_of(instance, world.clock, session="ses_1", ends_at=ends_at), options={"verify_signature": False}
    )
    assert claims["exp"] == claims["sxp"] == ends_at


async def test_a_rotation_is_known_before_it_signs_and_logs_nobody_out(world: World) -> None:
    first, second = world.instance(), world.instance()
    for each in (first, second):
        await each.keys.refresh()
    old_token = token_of(first, world.clock)
    new_kid = await first.keys.rotate()
    await second.keys.refresh()
    # Published by both, but not used yet: whoever caches the set has read it by then.
    for each in (first, second):
        assert {key["kid"] for key in key_set(each)} == {kid(old_token), new_kid}
        assert kid(token_of(each, world.clock)) == kid(old_token)
    world.clock.advance(PUBLISH_AHEAD_S - 1)
    last_old_token = token_of(second, world.clock)
    assert kid(last_old_token) == kid(old_token)
    world.clock.advance(1)
    for each in (first, second):
        assert kid(token_of(each, world.clock)) == new_kid
    assert await world.verifies(first, last_old_token)
    assert await world.verifies(second, token_of(first, world.clock))
    world.clock.advance(LIFETIME_S - 2)
    assert await world.verifies(first, last_old_token)
    # Once the last token of the old key has expired, nobody needs it.
    world.clock.advance(VERIFY_SLACK_S + 2)
    assert [key["kid"] for key in key_set(first)] == [new_kid]


async def test_a_rotation_that_is_asked_for_twice_makes_one_key(world: World) -> None:
    instance, other = world.instance(), world.instance()
    await instance.keys.refresh()
    kids = await asyncio.gather(instance.keys.rotate(), other.keys.rotate(), instance.keys.rotate())
    assert len(set(kids)) == 1
    assert world.count() == 2
    world.clock.advance(PUBLISH_AHEAD_S)
    assert await instance.keys.rotate() != kids[0]


async def test_keys_rotate_by_themselves_once_for_all_instances(world: World) -> None:
    instances = [world.instance() for _ in range(3)]
    await asyncio.gather(*(each.keys.refresh() for each in instances))
    world.clock.advance(ROTATION_S - 1)
    await asyncio.gather(*(each.keys.refresh() for each in instances))
    assert world.count() == 1
    world.clock.advance(1)
    await asyncio.gather(*(each.keys.refresh() for each in instances))
    assert world.count() == 2


async def test_keys_whose_tokens_are_long_gone_are_removed(world: World) -> None:
    instance = world.instance()
    await instance.keys.refresh()
    for _ in range(3):
        await instance.keys.rotate()
        world.clock.advance(PUBLISH_AHEAD_S + 2 * (LIFETIME_S + VERIFY_SLACK_S) + 1)
    await instance.keys.rotate()
    assert world.count() == 2


async def test_an_instance_that_has_not_seen_the_database_for_long_signs_nothing(world: World) -> None:
    informed, cut_off = world.instance(), world.instance()
    for each in (informed, cut_off):
        await each.keys.refresh()
    await informed.keys.rotate()
    world.clock.advance(PUBLISH_AHEAD_S)
    assert await world.verifies(informed, token_of(cut_off, world.clock))
    world.clock.advance(1)
    with pytest.raises(ServiceError) as caught:
        token_of(cut_off, world.clock)
    assert caught.value.reason == ErrorReason.AUTH_UNAVAILABLE
    await cut_off.keys.refresh()
    assert await world.verifies(informed, token_of(cut_off, world.clock))


async def test_before_any_key_is_known_nothing_is_signed(world: World) -> None:
    with pytest.raises(ServiceError) as caught:
        token_of(world.instance(), world.clock)
    assert caught.value.reason == ErrorReason.AUTH_UNAVAILABLE


async def test_private_keys_are_sealed_and_another_secret_is_told_from_a_good_one(world: World) -> None:
    await world.instance().keys.refresh()
    with psycopg.connect(world.database.admin_url) as connection:
        row = connection.execute("SELECT private_key, public_jwk FROM auth_signing_keys").fetchone()
    assert row is not None
    assert not any(header in bytes(row[0]) for header in (b"PRIVATE", b"\x30\x81\x87"))
    assert row[1].keys() == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    with pytest.raises(WrongSecret):
        await world.instance(Secret("another secret of thirty-two characters")).keys.refresh()
    assert world.count() == 1


async def test_the_key_set_is_as_envoy_reads_it(world: World) -> None:
    instance = world.instance()
    await instance.keys.refresh()
    (key,) = key_set(instance)
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    assert "d" not in key
    loaded = jwt.PyJWK(key)
    claims = jwt.decode(
        token_of(instance, world.clock),
        loaded.key,
        ["ES256"],
        audience="pincex",
        issuer="pincex",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["sub"] == "100001"


async def test_a_stolen_key_is_gone_at_once_and_another_signs_when_the_edge_can_know_it(world: World) -> None:
    first, second = world.instance(), world.instance()
    for each in (first, second):
        await each.keys.refresh()
    stolen = token_of(first, world.clock)
    waiting = await first.keys.rotate()
    await second.keys.refresh()

    retired, signs = await first.keys.retire(kid(stolen), "on a paste site")
    # What lay beside it is stolen too.
    assert sorted(retired) == sorted([kid(stolen), waiting])
    await second.keys.refresh()
    for each in (first, second):
        assert [key["kid"] for key in key_set(each)] == [signs.key_id]
        assert not await world.verifies(each, stolen)
        assert not each.keys.is_known(kid(stolen))
        with pytest.raises(ServiceError) as caught:
            token_of(each, world.clock)
        assert caught.value.reason == ErrorReason.AUTH_UNAVAILABLE
    world.clock.advance(REPLACE_AHEAD_S)
    for each in (first, second):
        assert kid(token_of(each, world.clock)) == signs.key_id
    assert world.revoked() == [("signing_key", each, "", "on a paste site") for each in retired]
    # A repeat, and what was never there.
    retired_again, signs_still = await second.keys.retire(kid(stolen), "again")
    assert (retired_again, signs_still.key_id) == ([], signs.key_id)
    with pytest.raises(ServiceError) as caught:
        await second.keys.retire("no such key", "a test")
    assert (caught.value.reason, caught.value.metadata["field"]) == (ErrorReason.INVALID_FIELD, "key_id")
    assert world.count() == 1


async def test_retiring_a_key_that_signs_no_more_or_not_yet_stops_nobody(world: World) -> None:
    instance = world.instance()
    await instance.keys.refresh()
    first = token_of(instance, world.clock)
    second = await instance.keys.rotate()
    world.clock.advance(PUBLISH_AHEAD_S)
    await instance.keys.retire(kid(first), "a test")
    assert kid(token_of(instance, world.clock)) == second
    assert not await world.verifies(instance, first)

    waiting = await instance.keys.rotate()
    retired, signs = await instance.keys.retire(waiting, "a test")
    assert (retired, signs.key_id) == ([waiting], second)
    # Nobody takes over then.
    world.clock.advance(PUBLISH_AHEAD_S)
    await instance.keys.refresh()
    assert kid(token_of(instance, world.clock)) == second


async def test_all_keys_are_retired_by_one_call_also_an_old_one_whose_tokens_live(world: World) -> None:
    instance = world.instance()
    await instance.keys.refresh()
    old = token_of(instance, world.clock)
    await instance.keys.rotate()
    world.clock.advance(PUBLISH_AHEAD_S)
    new = token_of(instance, world.clock)
    retired, signs = await instance.keys.retire(kid(new), "the one that signs")
    assert retired == [kid(new)]
    # The older one is published yet, and signs nothing.
    assert {key["kid"] for key in key_set(instance)} == {kid(old), signs.key_id}
    with pytest.raises(ServiceError):
        token_of(instance, world.clock)
    world.clock.advance(REPLACE_AHEAD_S)
    newest = token_of(instance, world.clock)
    assert kid(newest) == signs.key_id
    retired, signs = await instance.keys.retire("", "all of them")
    assert sorted(retired) == sorted([kid(old), kid(newest)])
    assert [key["kid"] for key in key_set(instance)] == [signs.key_id]


async def test_a_stolen_signing_key_is_refused_within_a_second_and_sessions_go_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "REPLACE_AHEAD_S", 0)
    async with running_auth(database, tmp_path) as service:
        tokens = await service.new_session()
        operator = await service.register()
        service.rows("UPDATE users SET roles = '{operator}' WHERE email = %s", operator)
        staff = bearer(await service.log_in(operator))
        asked = user_service_pb2.GetUserRequest()
        await service.user.GetUser(asked, metadata=bearer(tokens))
        wrong = auth_admin_service_pb2.RetireSigningKeyRequest(key_id="none", reason="a test")
        assert (await refused(service.admin.RetireSigningKey(wrong, metadata=staff))).reason == "INVALID_FIELD"
        nameless = auth_admin_service_pb2.RetireSigningKeyRequest()
        assert (await refused(service.admin.RetireSigningKey(nameless, metadata=staff))).reason == "FIELD_REQUIRED"
        request = auth_admin_service_pb2.RetireSigningKeyRequest(key_id=kid(tokens.access_token), reason="stolen")
        answer = await service.admin.RetireSigningKey(request, metadata=staff)
        assert list(answer.retired_key_ids) == [kid(tokens.access_token)]
        await service.until_revoked(lambda: service.user.GetUser(asked, metadata=bearer(tokens)))
        await service.until_revoked(lambda: service.user.GetUser(asked, metadata=staff))
        # The same once the key is known no more.
        keys = service.app.identity.keys
        assert keys is not None
        await keys.refresh()
        assert keys.get(kid(tokens.access_token)) is None
        await service.until_revoked(lambda: service.user.GetUser(asked, metadata=bearer(tokens)))
        fresh = await service.refresh(tokens.refresh_token)
        assert kid(fresh.access_token) == answer.key_id
        await service.user.GetUser(asked, metadata=bearer(fresh))


async def test_keys_are_refreshed_for_ever_and_an_outage_is_waited_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.auth.signing_keys.REFRESH_S", 0.005)
    instance = world.instance()
    outages = [True, True]
    real = instance.keys.refresh

    async def sometimes() -> None:
        if outages:
            outages.pop()
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE)
        await real()

    monkeypatch.setattr(instance.keys, "refresh", sometimes)
    async with AsyncExitStack() as stack:
        running = asyncio.create_task(instance.keys.run())
        stack.callback(running.cancel)
        await eventually(lambda: key_set(instance) != [], "keys are read")
    assert outages == []
