"""Refresh tokens: each gives new tokens once, a second use ends the session, and a lost answer costs nobody the session."""

from __future__ import annotations

import json

import grpc
import psycopg
import pytest

from pincex.auth.v1 import auth_service_pb2 as pb
from pincex.auth.v1 import user_service_pb2
from tests.integration.auth.auth_app import HERE, THERE, Service, bearer, eventually, refused, running_auth

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOLD = "SELECT FROM user_sessions WHERE session_id = %s FOR UPDATE"


def age(service: Service, session_id: str, seconds: float) -> None:
    """Time passes for the tokens of a session."""
    service.rows(
        "UPDATE refresh_tokens SET used_at = used_at - make_interval(secs => %s) WHERE session_id = %s",
        seconds,
        session_id,
    )


async def test_a_refresh_token_gives_new_tokens_for_the_same_session(service: Service) -> None:
    tokens = await service.new_session()
    new = await service.refresh(tokens.refresh_token)
    assert new.session_id == tokens.session_id
    assert new.account == tokens.account
    assert new.refresh_expire_time == tokens.refresh_expire_time
    assert new.refresh_token != tokens.refresh_token
    assert new.access_token != tokens.access_token
    user = await service.user.GetUser(user_service_pb2.GetUserRequest(), metadata=bearer(new))
    assert user.user_id == tokens.user_id


@pytest.mark.parametrize(("seconds", "come_from"), [(0, THERE), (11, HERE)])
async def test_a_second_use_ends_the_session_and_is_on_record(service: Service, seconds: float, come_from: str) -> None:
    tokens = await service.new_session()
    new = await service.refresh(tokens.refresh_token)
    age(service, tokens.session_id, seconds)
    assert (await refused(service.refresh(tokens.refresh_token, come_from))).reason == "CREDENTIAL_REVOKED"
    # Whoever has the newer token is out as well, on every server.
    assert (await refused(service.refresh(new.refresh_token))).reason == "CREDENTIAL_REVOKED"
    await service.until_revoked(lambda: service.user.GetUser(user_service_pb2.GetUserRequest(), metadata=bearer(new)))
    assert service.rows("SELECT kind, user_id, reason FROM auth_revocations WHERE subject = %s", tokens.session_id) == [
        ("session", tokens.user_id, "refresh token used twice")
    ]
    query = "SELECT address, details FROM audit_records WHERE action = 'session.refresh-reused' AND actor = %s"
    await eventually(lambda: len(service.rows(query, tokens.user_id)) == 1, "one audit record")
    ((address, details),) = service.rows(query, tokens.user_id)
    assert (address, json.loads(details)) == (come_from, {"session_id": tokens.session_id})
    assert tokens.refresh_token not in details


async def test_a_lost_answer_is_given_again_for_ten_seconds_to_the_same_address(service: Service) -> None:
    tokens = await service.new_session()
    lost = await service.refresh(tokens.refresh_token)
    age(service, tokens.session_id, 9)
    again = await service.refresh(tokens.refresh_token)
    assert again.refresh_token == lost.refresh_token
    assert (await service.refresh(again.refresh_token)).access_token


async def test_once_the_successor_was_used_no_answer_was_lost(service: Service) -> None:
    tokens = await service.new_session()
    new = await service.refresh(tokens.refresh_token)
    await service.refresh(new.refresh_token)
    assert (await refused(service.refresh(tokens.refresh_token))).reason == "CREDENTIAL_REVOKED"


async def test_refreshes_at_once_have_one_successor_between_them(service: Service) -> None:
    tokens = await service.new_session()
    calls = [service.refresh(tokens.refresh_token) for _ in range(6)]
    found = await service.at_once(HOLD, tokens.session_id, calls)
    assert len({each.refresh_token for each in found}) == 1
    count = service.rows("SELECT count(*) FROM refresh_tokens WHERE session_id = %s", tokens.session_id)
    assert count == [(2,)]
    assert (await service.refresh(found[0].refresh_token)).access_token


async def test_a_thief_and_the_owner_at_once_do_not_both_get_in(service: Service) -> None:
    tokens = await service.new_session()
    calls = [service.refresh(tokens.refresh_token, HERE), service.refresh(tokens.refresh_token, THERE)]
    outcomes = await service.at_once(HOLD, tokens.session_id, calls)
    assert sum(isinstance(outcome, BaseException) for outcome in outcomes) == 1
    (ended,) = service.rows("SELECT ended_at IS NOT NULL FROM user_sessions WHERE session_id = %s", tokens.session_id)
    assert ended == (True,)


async def test_what_is_no_refresh_token_is_refused(service: Service) -> None:
    assert (await refused(service.refresh(""))).reason == "FIELD_REQUIRED"
    tokens = await service.new_session()
    for wrong in ("rt_nothing", tokens.access_token, tokens.refresh_token + "x", "x" * 10_000, "' OR true --"):
        assert (await refused(service.refresh(wrong))).reason == "TOKEN_REFUSED"
    await service.refresh(tokens.refresh_token)


async def test_a_session_is_over_at_its_time_however_often_it_was_refreshed(service: Service) -> None:
    tokens = await service.refresh((await service.new_session()).refresh_token)
    service.rows("UPDATE user_sessions SET expires_at = now() WHERE session_id = %s", tokens.session_id)
    assert (await refused(service.refresh(tokens.refresh_token))).reason == "TOKEN_EXPIRED"


async def test_a_lock_by_wrong_passwords_leaves_sessions_alone_and_an_operators_lock_does_not(service: Service) -> None:
    tokens = await service.new_session()
    lock = "UPDATE users SET locked_at = now(), lock_scope = %s WHERE user_id = %s"
    service.rows(lock, "login", int(tokens.user_id))
    tokens = await service.refresh(tokens.refresh_token)
    service.rows(lock, "all", int(tokens.user_id))
    assert (await refused(service.refresh(tokens.refresh_token))).reason == "ACCOUNT_LOCKED"
    service.rows("UPDATE users SET locked_at = NULL, lock_scope = NULL WHERE user_id = %s", int(tokens.user_id))
    assert (await service.refresh(tokens.refresh_token)).access_token


async def test_tokens_are_stored_as_hashes_and_a_successor_is_sealed_until_it_was_used(service: Service) -> None:
    tokens = await service.new_session()
    new = await service.refresh(tokens.refresh_token)
    query = "SELECT token_hash, successor FROM refresh_tokens WHERE session_id = %s ORDER BY created_at"
    (_, sealed), (_, none) = service.rows(query, tokens.session_id)
    assert none is None
    assert len(sealed) > 32
    assert new.refresh_token.encode() not in bytes(sealed)
    await service.refresh(new.refresh_token)
    rows = service.rows(query, tokens.session_id)
    assert [successor is not None for _, successor in rows] == [False, True, False]
    assert all(len(token_hash) == 32 for token_hash, _ in rows)


async def test_a_refresh_that_fails_halfway_uses_nothing_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = await service.new_session()

    async def broken(*_: object) -> None:
        raise RuntimeError("halfway")

    with monkeypatch.context() as patch:
        patch.setattr(service.app.parts.sessions, "_add_token", broken)
        assert (await refused(service.refresh(tokens.refresh_token))).reason == "INTERNAL"
    assert service.rows("SELECT used_at FROM refresh_tokens WHERE session_id = %s", tokens.session_id) == [(None,)]
    assert (await service.refresh(tokens.refresh_token)).access_token


async def test_a_client_that_gives_up_while_it_waits_uses_nothing_up_and_holds_nothing(service: Service) -> None:
    tokens = await service.new_session()
    request = pb.RefreshTokensRequest(refresh_token=tokens.refresh_token)
    with psycopg.connect(service.database.admin_url) as holder:
        holder.execute(HOLD, (tokens.session_id,))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.auth.RefreshTokens(request, timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = "SELECT 1 FROM pg_stat_activity WHERE usename = 'auth_user' AND state LIKE 'idle in transaction%%'"
    await eventually(lambda: service.rows(waiting) == [], "its transaction is over")
    assert (await service.refresh(tokens.refresh_token)).access_token


async def test_what_one_instance_gave_another_refreshes_and_takes(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokens = await service.new_session()
    async with running_auth(service.database, tmp_path_factory.mktemp("second")) as second:
        new = await second.refresh(tokens.refresh_token)
        for instance, given in ((second, tokens), (service, new)):
            await instance.user.GetUser(user_service_pb2.GetUserRequest(), metadata=bearer(given))
        # Both say the same keys, and the answer that was lost at one is had from the other.
        assert (await service.refresh(tokens.refresh_token)).refresh_token == new.refresh_token
        sets = [await each.auth.GetKeySet(pb.GetKeySetRequest()) for each in (service, second)]
        assert sets[0] == sets[1]


async def test_refreshes_are_counted_by_what_became_of_them(service: Service) -> None:
    def counts() -> list[float]:
        outcomes = ("OK", "repeated", "reused", "refused")
        return [service.sample("pincex_auth_refreshes_total", outcome=outcome) for outcome in outcomes]

    before = counts()
    tokens = await service.new_session()
    await service.refresh(tokens.refresh_token)
    await service.refresh(tokens.refresh_token)
    await refused(service.refresh(tokens.refresh_token, THERE))
    await refused(service.refresh(tokens.refresh_token, THERE))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1, 1]
