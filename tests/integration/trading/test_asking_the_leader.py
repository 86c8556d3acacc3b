"""What only the leader can answer reaches it, whichever instance the operators have reached."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from exchange.runtime.audit.contract import AuditEntry
from exchange.trading import rules
from exchange.trading.service.leader_calls import PUT_THROUGH_KEY
from pincex.trading.v1 import admin_replicas_pb2 as replicas_pb
from tests.integration.trading.engine_app import DEADLINE_S, Exchange, eventually, refused, running_exchange

pytestmark = pytest.mark.each_role


async def ask(exchange: Exchange, method: str, request: Any) -> Any:
    return await exchange.operator.ask(getattr(exchange.operator.admin, method), request)


async def test_leadership_goes_to_a_follower_whoever_is_asked(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_exchange(monkeypatch, store=exchange.store, PINCEX_INSTANCE="another") as another:
        placed = await exchange.demo.buy("1", "49000")
        given = await ask(exchange, "HandOverLeadership", replicas_pb.HandOverLeadershipRequest(reason="a test"))

        assert (given.instance, given.sequence >= int(placed.sequence)) == ("engine-under-test", True)
        assert exchange.app.desk.sequencer is None
        await exchange.demo.buy("1", "48000")
        assert len(await another.demo.listed()) == 2


async def test_a_call_that_is_put_through_is_on_record_once(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_exchange(monkeypatch, store=exchange.store, PINCEX_INSTANCE="another") as follower:
        recorded: list[tuple[str, str, str]] = []
        for one in (exchange, follower):
            trail = one.app.audit.trail
            name = one.app.config.runtime.instance

            async def begun(entry: AuditEntry, name: str = name) -> None:
                recorded.append((name, "BEGUN", entry.request_id))

            async def ended(entry: AuditEntry, outcome: str, name: str = name) -> None:
                recorded.append((name, outcome, entry.request_id))

            monkeypatch.setattr(trail, "begun", begun)
            monkeypatch.setattr(trail, "ended", ended)
        call = follower.operator.admin.ActivateRules(
            replicas_pb.ActivateRulesRequest(rules_version=99), metadata=(("x-request-id", "r-1"),), timeout=DEADLINE_S
        )
        assert (await refused(call)).reason == "RULES_NOT_SUPPORTED"
        assert recorded == [("engine-under-test", "BEGUN", "r-1"), ("engine-under-test", "RULES_NOT_SUPPORTED", "r-1")]


async def test_leadership_that_nobody_can_take_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_exchange(monkeypatch) as alone:
        refusal = await refused(ask(alone, "HandOverLeadership", replicas_pb.HandOverLeadershipRequest()))

        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "NOT_READY")
        assert "no follower" in refusal.message
        await alone.demo.buy("1", "49000")


async def test_a_call_is_put_through_once(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_exchange(monkeypatch, store=exchange.store, PINCEX_INSTANCE="another") as follower:
        call = follower.operator.admin.HandOverLeadership(
            replicas_pb.HandOverLeadershipRequest(), metadata=((PUT_THROUGH_KEY, "1"),), timeout=DEADLINE_S
        )
        assert (await refused(call)).reason == "NOT_READY"
        assert exchange.app.desk.sequencer is not None


async def test_a_leader_that_hangs_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch, exchange: Exchange) -> None:
    monkeypatch.setattr("exchange.trading.service.leader_calls.WAIT_S", 0.2)
    hanging = asyncio.Event()
    monkeypatch.setattr(exchange.app.replica, "hand_over", hanging.wait)
    async with running_exchange(monkeypatch, store=exchange.store, PINCEX_INSTANCE="another") as follower:
        refusal = await refused(ask(follower, "HandOverLeadership", replicas_pb.HandOverLeadershipRequest()))
        hanging.set()

    assert (refusal.reason, refusal.code) == ("NOT_READY", "UNAVAILABLE")
    assert "engine-under-test, which leads, does not answer" in refusal.message


async def test_rules_that_one_instance_does_not_know_are_not_activated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        running_exchange(monkeypatch, PINCEX_MAX_RULES="1") as leader,
        running_exchange(monkeypatch, store=leader.store, PINCEX_INSTANCE="another") as another,
    ):
        for asked, version in ((leader, 2), (another, 3)):
            await newer_rules(asked, leader, version, monkeypatch)


async def newer_rules(exchange: Exchange, leader: Exchange, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask this instance for the next rules, while one of an older build is there and once it is gone."""
    with monkeypatch.context() as older:
        older.setattr(rules, "newest", lambda: version - 1)
        follower = running_exchange(older, store=leader.store, PINCEX_INSTANCE="older")
        await follower.__aenter__()
    try:
        refusal = await refused(ask(exchange, "ActivateRules", replicas_pb.ActivateRulesRequest(rules_version=version)))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "RULES_NOT_SUPPORTED")
        assert refusal.metadata == {"instance": "older", "supported_rules_version": str(version - 1)}
        assert leader.engine.state.rules_version == version - 1
    finally:
        await follower.__aexit__(None, None, None)
    downlinks = leader.app.replica.downlinks if leader.app.replica is not None else None
    assert downlinks is not None
    await eventually(lambda: all(one.instance != "older" for one in downlinks.replicas()), "the older one is gone")
    answer = await ask(exchange, "ActivateRules", replicas_pb.ActivateRulesRequest(rules_version=version, reason="new"))
    assert (answer.rules_version, leader.engine.state.rules_version) == (version, version)


async def test_only_operators_may(exchange: Exchange) -> None:
    for method, request in (
        ("CompareReplicas", replicas_pb.CompareReplicasRequest()),
        ("HandOverLeadership", replicas_pb.HandOverLeadershipRequest()),
        ("ActivateRules", replicas_pb.ActivateRulesRequest(rules_version=2)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exchange.demo.ask(getattr(exchange.demo.admin, method), request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
