"""The life of a withdrawal: each way from the request to its end, and what is refused on the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet import freezes
from exchange.wallet.connector import ConnectorAway, Refused
from exchange.wallet.gate import WithdrawalGate
from exchange.wallet.service.gate import SettlementGate
from pincex.settlement.v1 import settlement_service_pb2 as settlement_pb
from pincex.settlement.v1 import settlement_service_pb2_grpc
from pincex.wallet.v1 import types_pb2
from pincex.wallet.v1 import wallet_admin_service_pb2 as admin_pb
from pincex.wallet.v1 import wallet_service_pb2 as pb
from tests.integration.wallet.outgoing_world import (
    BURNT,
    COIN,
    FEE,
    TO,
    OutgoingWorld,
    TierLimits,
    drive,
    outgoing_world,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.postgres_fixture import Database

REQUESTED, AWAITING, APPROVED = types_pb2.REQUESTED, types_pb2.AWAITING_APPROVAL, types_pb2.APPROVED
BROADCAST, SETTLED, RETURNED = types_pb2.BROADCAST, types_pb2.SETTLED, types_pb2.RETURNED
CANCELLED, REJECTED = types_pb2.WITHDRAWAL_CANCELLED, types_pb2.REJECTED


BAD_INPUT: list[tuple[dict[str, str], str]] = [
    ({"amount": "0"}, "NOT_POSITIVE"),
    ({"amount": "-1"}, "NOT_POSITIVE"),
    ({"amount": ""}, "FIELD_REQUIRED"),
    ({"amount": "NaN"}, "INVALID_DECIMAL"),
    ({"amount": "1e3"}, "INVALID_DECIMAL"),
    ({"amount": "Infinity"}, "INVALID_DECIMAL"),
    ({"amount": " 1"}, "INVALID_DECIMAL"),
    ({"amount": "1,5"}, "INVALID_DECIMAL"),
    ({"amount": "0.000000001"}, "INVALID_FIELD"),
    ({"amount": "99999999999999999999"}, "NUMBER_TOO_LARGE"),
    ({"amount": "40000000000"}, "NUMBER_TOO_LARGE"),
    ({"amount": "9" * 60}, "INVALID_DECIMAL"),
    ({"amount": "0.0009"}, "INVALID_FIELD"),
    ({"amount": "10"}, "INSUFFICIENT_FUNDS"),
    ({"amount": "1001"}, "WITHDRAWAL_LIMIT"),
    ({"asset": ""}, "FIELD_REQUIRED"),
    ({"asset": "XYZ"}, "UNKNOWN_ASSET"),
    ({"network": "lightning"}, "UNKNOWN_NETWORK"),
    ({"address": ""}, "FIELD_REQUIRED"),
    ({"address": "sim1btc" + "1" * 24}, "ADDRESS_NOT_LISTED"),
    ({"address": "x" * 200}, "INVALID_FIELD"),
    ({"address": "with space"}, "INVALID_FIELD"),
    ({"asset": "ETH", "address": TO}, "ADDRESS_NOT_LISTED"),
    ({"request_id": ""}, "FIELD_REQUIRED"),
    ({"request_id": "a b"}, "INVALID_FIELD"),
    ({"request_id": "x" * 65}, "INVALID_FIELD"),
]


@pytest.fixture
async def world(wallet_database: Database) -> AsyncIterator[OutgoingWorld]:
    """An account `ann` with ten coins and an address to withdraw to."""
    async with outgoing_world(wallet_database) as found:
        found.clear()
        await found.fund("ann", "BTC", "10")
        await found.list_address("ann")
        yield found
        found.check()


async def refusal(call: Awaitable[Any]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


async def refused(call: Awaitable[Any]) -> str:
    return (await refusal(call)).reason_name


async def freeze(world: OutgoingWorld, account: str) -> None:
    async with world.outside.connection() as connection:
        await freezes.freeze(connection, account, "suspicious", "operator")


async def thaw(world: OutgoingWorld, account: str) -> None:
    async with world.outside.connection() as connection:
        await freezes.thaw(connection, account, "cleared", "operator")


def balance(world: OutgoingWorld, account: str = "ann") -> tuple[int, int]:
    """(available, held)."""
    return world.engine.free[account, "BTC"], world.engine.held[account, "BTC"]


async def test_a_withdrawal_goes_out_and_its_fee_stays(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    assert (made.status, made.amount, made.fee, made.approved_by) == (APPROVED, "0.50000000", "0.00010000", "policy")
    assert made.hold_sequence
    assert balance(world) == (10 * COIN - COIN // 2 - FEE, COIN // 2 + FEE)
    await world.work()
    sent = await world.get("ann", made.withdrawal_id)
    assert sent.status == BROADCAST
    assert sent.transaction_id.startswith("simtx-")
    await drive(world, 3)
    done = await world.get("ann", made.withdrawal_id)
    assert (done.status, done.confirmations, done.required_confirmations) == (SETTLED, 2, 2)
    assert done.final_sequence > done.hold_sequence
    assert balance(world) == (10 * COIN - COIN // 2 - FEE, 0)
    assert world.fees() == FEE
    assert world.sends("ann") == [(TO, COIN // 2)]
    world.check_whole()


async def test_more_than_the_policy_allows_waits_for_an_operator_who_is_somebody_else(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.50000001", "w1", user="7")
    assert made.status == AWAITING
    await drive(world, 2)
    assert world.sends("ann") == []
    assert await refused(world.approve(made.withdrawal_id, "ann")) == "FOUR_EYES"
    assert await refused(world.approve(made.withdrawal_id, "ann.other", "7")) == "FOUR_EYES"
    world.as_user("operator")
    pending = await world.operations.pending(admin_pb.ListPendingWithdrawalsRequest())
    assert [one.withdrawal_id for one in pending.withdrawals] == [made.withdrawal_id]
    approved = await world.approve(made.withdrawal_id, "operator", "9")
    assert (approved.status, approved.approved_by) == (APPROVED, "9")
    assert (await world.approve(made.withdrawal_id, "another")).approved_by == "9", "approved once"
    await drive(world, 4)
    assert world.statuses("ann") == ["SETTLED"]
    assert (await world.approve(made.withdrawal_id)).status == SETTLED, "a repeat is answered the same"
    assert await refused(world.reject(made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"


async def test_an_asset_without_a_policy_always_needs_an_operator(world: OutgoingWorld) -> None:
    await world.fund("ann", "USD", "100")
    address = "sim1usd" + "0" * 24
    await world.list_address("ann", address, "USD")
    assert (await world.create("ann", "10", "u1", asset="usd", address=address)).status == AWAITING


async def test_a_repeat_is_answered_the_same_and_moves_nothing(world: OutgoingWorld) -> None:
    first = await world.create("ann", "0.5", "w1")
    before = balance(world)
    assert await world.create("ann", "0.500", "w1", asset="btc", network="") == first
    for other in ({"amount": "0.4"}, {"address": BURNT}):
        fields = {"amount": "0.5", **other}
        assert await refused(world.create("ann", request_id="w1", **fields)) == "DUPLICATE_ID"
    await drive(world, 4)
    again = await world.create("ann", "0.5", "w1")
    assert (again.withdrawal_id, again.status) == (first.withdrawal_id, SETTLED)
    assert balance(world) == (before[0], 0)
    assert len(world.sends("ann")) == 1


async def test_the_same_id_is_another_request_of_another_account(world: OutgoingWorld) -> None:
    await world.fund("bob", "BTC", "1")
    await world.list_address("bob")
    mine, theirs = await world.create("ann", "0.5", "w1"), await world.create("bob", "0.4", "w1")
    assert mine.withdrawal_id != theirs.withdrawal_id
    assert await refused(world.get("ann", theirs.withdrawal_id)) == "WITHDRAWAL_NOT_FOUND"
    assert await refused(world.cancel("ann", theirs.withdrawal_id)) == "WITHDRAWAL_NOT_FOUND"
    assert world.statuses("bob") == ["APPROVED"]


async def test_two_repeats_at_once_are_one_withdrawal(world: OutgoingWorld) -> None:
    world.tiers.limits = TierLimits(1, {"BTC": Decimal("0.6")})
    first, second = await asyncio.gather(world.create("ann", "0.5", "w1"), world.create("ann", "0.5", "w1"))
    assert first.withdrawal_id == second.withdrawal_id
    assert balance(world) == (10 * COIN - COIN // 2 - FEE, COIN // 2 + FEE)


async def test_bad_input_has_a_reason_and_moves_nothing(world: OutgoingWorld) -> None:
    for number, (fields, reason) in enumerate(BAD_INPUT):
        values = {"amount": "0.5", "request_id": f"w{number}", **fields}
        assert await refused(world.create("ann", **values)) == reason, fields
        assert balance(world) == (10 * COIN, 0)
    assert world.statuses("ann") == ["REJECTED"], "the hold of one was refused, the others never came on record"
    await world.work()
    assert world.sends("ann") == []


async def test_unknown_and_empty_ids_have_reasons(world: OutgoingWorld) -> None:
    for call, empty in (
        (world.get("ann", "nothing"), world.get("ann", "")),
        (world.cancel("ann", "nothing"), world.cancel("ann", "")),
        (world.approve("nothing"), world.approve("")),
        (world.reject("nothing"), world.reject("")),
    ):
        assert await refused(call) == "WITHDRAWAL_NOT_FOUND"
        assert await refused(empty) == "FIELD_REQUIRED"
    assert await refused(world.reject("nothing", reason=" ")) == "FIELD_REQUIRED"


async def test_too_little_money_is_told_again_to_a_repeat_even_if_there_is_more_now(world: OutgoingWorld) -> None:
    assert await refused(world.create("ann", "10", "w1")) == "INSUFFICIENT_FUNDS"
    assert world.statuses("ann") == ["REJECTED"]
    await world.fund("ann", "BTC", "5")
    assert await refused(world.create("ann", "10", "w1")) == "INSUFFICIENT_FUNDS"
    assert (await world.create("ann", "10", "w2")).status == AWAITING
    assert await refused(world.approve(world_id(world, "w1"))) == "WITHDRAWAL_UNDER_WAY"


def world_id(world: OutgoingWorld, request_id: str) -> str:
    ((found,),) = world.sql("SELECT withdrawal_id FROM withdrawals WHERE request_id = %s", request_id)
    return str(found)


async def test_the_whole_balance_goes_and_not_a_unit_more(world: OutgoingWorld) -> None:
    assert await refused(world.create("ann", "9.99990001", "w1")) == "INSUFFICIENT_FUNDS"
    made = await world.create("ann", "9.9999", "w2")
    assert balance(world) == (0, 10 * COIN)
    await world.approve(made.withdrawal_id)
    await drive(world, 4)
    assert balance(world) == (0, 0)
    world.check_whole()


async def test_a_cancelled_withdrawal_gives_its_money_back_once(world: OutgoingWorld) -> None:
    made = await world.create("ann", "2", "w1")
    assert made.status == AWAITING
    cancelled = await world.cancel("ann", made.withdrawal_id)
    assert (cancelled.status, cancelled.approved_by) == (CANCELLED, "")
    assert cancelled.final_sequence > made.hold_sequence
    assert balance(world) == (10 * COIN, 0)
    assert (await world.cancel("ann", made.withdrawal_id)).status == CANCELLED
    assert await refused(world.approve(made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"
    assert await refused(world.reject(made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"
    await drive(world, 3)
    assert world.sends("ann") == []
    world.check_whole()


async def test_a_refused_withdrawal_gives_its_money_back_and_says_why(world: OutgoingWorld) -> None:
    made = await world.create("ann", "2", "w1")
    rejected = await world.reject(made.withdrawal_id, "not like this")
    assert (rejected.status, rejected.problem) == (REJECTED, "not like this")
    assert balance(world) == (10 * COIN, 0)
    assert (await world.reject(made.withdrawal_id, "again")).problem == "not like this"
    assert await refused(world.cancel("ann", made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"
    world.check_whole()


async def test_what_was_handed_to_the_network_cannot_be_cancelled(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    await world.work()
    assert await refused(world.cancel("ann", made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"
    assert await refused(world.reject(made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"
    await drive(world, 3)
    assert world.statuses("ann") == ["SETTLED"]


async def test_what_the_network_refuses_for_good_comes_back_and_does_not_count(world: OutgoingWorld) -> None:
    world.tiers.limits = TierLimits(1, {"BTC": Decimal("0.5")})
    await world.list_address("ann", BURNT)
    made = await world.create("ann", "0.5", "w1", address=BURNT)
    await drive(world, 2)
    found = await world.get("ann", made.withdrawal_id)
    assert found.status == RETURNED
    assert "refused by the network" in found.problem
    assert balance(world) == (10 * COIN, 0)
    assert world.fees() == 0
    assert (await world.create("ann", "0.5", "w2")).status == APPROVED
    await drive(world, 4)
    world.check_whole()


async def test_an_unknown_hold_is_found_out_by_the_worker(world: OutgoingWorld) -> None:
    for request_id, fault in (("before", "away"), ("after", "lost_answers")):
        setattr(world.engine, fault, 1)
        made = await world.create("ann", "0.5", request_id)
        assert made.status == REQUESTED
        assert await refused(world.approve(made.withdrawal_id)) == "NOT_READY"
        await drive(world, 4)
        assert (await world.get("ann", made.withdrawal_id)).status == SETTLED
    assert balance(world) == (10 * COIN - 2 * (COIN // 2 + FEE), 0)
    world.check_whole()


async def test_a_hold_that_turns_out_to_be_refused_later_says_so(world: OutgoingWorld) -> None:
    world.engine.away = 1
    made = await world.create("ann", "10", "w1")
    assert made.status == REQUESTED
    await world.work()
    found = await world.get("ann", made.withdrawal_id)
    assert found.status == REJECTED
    assert "INSUFFICIENT_FUNDS" in found.problem or "available" in found.problem
    assert await refused(world.create("ann", "10", "w1")) == "INSUFFICIENT_FUNDS"


async def test_a_withdrawal_is_cancelled_though_its_hold_is_not_known(world: OutgoingWorld) -> None:
    world.engine.lost_answers = 1
    made = await world.create("ann", "0.5", "w1")
    assert made.status == REQUESTED
    assert (await world.cancel("ann", made.withdrawal_id)).status == CANCELLED
    assert balance(world) == (10 * COIN, 0)
    world.check_whole()


async def test_a_cancellation_whose_outcome_is_unknown_is_carried_out_by_the_worker(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    world.engine.away = 1
    assert await refused(world.cancel("ann", made.withdrawal_id)) == "UPSTREAM_UNAVAILABLE"
    assert await refused(world.approve(made.withdrawal_id)) == "WITHDRAWAL_UNDER_WAY"
    await world.work()
    assert world.statuses("ann") == ["WITHDRAWAL_CANCELLED"]
    assert world.sends("ann") == []


async def test_a_network_that_is_away_is_asked_until_it_answers(
    world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for request_id, after in (("before", False), ("after", True)):
        send, asked = world.chain.send, 0

        async def away(*values: Any, send: Any = send, after: bool = after) -> Any:
            nonlocal asked
            asked += 1
            if after:
                await send(*values)
            raise ConnectorAway("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(world.chain, "send", away)
            world.restart()
            made = await world.create("ann", "0.5", request_id)
            await drive(world, 2)
            found = await world.get("ann", made.withdrawal_id)
            assert found.status in ({BROADCAST, SETTLED} if after else {types_pb2.SENDING})
            assert asked == (1 if after else 2), "what the network knows already is not sent again"
        world.restart()
        await drive(world, 4)
        assert (await world.get("ann", made.withdrawal_id)).status == SETTLED
    assert world.sends("ann") == [(TO, COIN // 2)] * 2
    world.check_whole()


@pytest.mark.parametrize("stop", ["operator", "gate", "gate-away", "frozen"])
async def test_nothing_goes_out_while_it_must_not_and_all_goes_on_afterwards(world: OutgoingWorld, stop: str) -> None:
    made = await world.create("ann", "0.5", "before")
    world.as_user("operator")
    if stop == "operator":
        await world.operations.stop(admin_pb.StopWithdrawalsRequest(reason="incident 7"))
    elif stop == "frozen":
        await freeze(world, "ann")
    else:
        world.gate.why, world.gate.away = "1 incidents are open", stop == "gate-away"
    world.restart()
    await drive(world, 3)
    assert (await world.get("ann", made.withdrawal_id)).status == APPROVED, "held, and not handed over"
    assert world.sends("ann") == []
    error = await refusal(world.create("ann", "0.5", "meanwhile"))
    assert error.reason_name == ("ACCOUNT_FROZEN" if stop == "frozen" else "WITHDRAWALS_STOPPED")
    assert not any(word in error.message for word in ("operator", "incident")), "that is no customer's affair"
    world.as_user("operator")
    under_way = await world.operations.pending(admin_pb.ListPendingWithdrawalsRequest(under_way=True))
    assert [one.withdrawal_id for one in under_way.withdrawals] == [made.withdrawal_id]
    assert not (await world.operations.pending(admin_pb.ListPendingWithdrawalsRequest())).withdrawals
    if stop == "operator":
        assert (await world.stops.why()) == "stopped by operator: incident 7"
    assert (await world.create("ann", "0.5", "before")).withdrawal_id == made.withdrawal_id, "a repeat is answered"
    world.as_user("ann")
    limits = await world.calls.limits(pb.GetWithdrawalLimitsRequest())
    assert (limits.frozen, limits.withdrawals_stopped) == (stop == "frozen", stop != "frozen")
    world.as_user("operator")
    if stop == "operator":
        await world.operations.resume(admin_pb.ResumeWithdrawalsRequest(reason="over"))
    elif stop == "frozen":
        await thaw(world, "ann")
    world.gate.why, world.gate.away = "", False
    await drive(world, 4)
    assert world.statuses("ann") == ["SETTLED"]
    world.check_whole()


async def test_a_stop_between_two_steps_keeps_the_money_in(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    found = await world.withdrawals.get(made.withdrawal_id)
    sending = await world.steps.step(found)
    assert sending is not None
    assert sending.status == "SENDING"
    await freeze(world, "ann")
    await drive(world, 3)
    assert world.statuses("ann") == ["SENDING"]
    assert world.sends("ann") == []
    await thaw(world, "ann")
    await drive(world, 4)
    assert world.statuses("ann") == ["SETTLED"]


async def test_what_was_sent_settles_though_withdrawals_are_stopped(world: OutgoingWorld) -> None:
    await world.create("ann", "0.5", "w1")
    await world.work()
    world.as_user("operator")
    await world.operations.stop(admin_pb.StopWithdrawalsRequest(reason="incident"))
    world.gate.why = "closed"
    await freeze(world, "ann")
    await drive(world, 4)
    assert world.statuses("ann") == ["SETTLED"]


async def test_a_stop_survives_a_restart_and_is_lifted_once(world: OutgoingWorld) -> None:
    world.as_user("operator")
    await world.operations.stop(admin_pb.StopWithdrawalsRequest(reason="first"))
    await world.operations.stop(admin_pb.StopWithdrawalsRequest(reason="second"))
    world.restart()
    assert await world.stops.why() == "stopped by operator: second"
    for _ in range(2):
        await world.operations.resume(admin_pb.ResumeWithdrawalsRequest(reason="over"))
    assert await world.stops.why() == ""
    for call in (world.operations.stop, world.operations.resume):
        assert await refused(call(admin_pb.StopWithdrawalsRequest(reason=" "))) == "FIELD_REQUIRED"  # type: ignore[arg-type]


async def test_a_transaction_that_a_reorg_took_back_is_waited_for(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    await world.work()
    await world.chain.grow()
    await world.work()
    assert (await world.get("ann", made.withdrawal_id)).confirmations == 1
    await world.chain.reorganise(1)
    await world.work()
    assert (await world.get("ann", made.withdrawal_id)).confirmations == 0
    await drive(world, 3)
    assert world.statuses("ann") == ["SETTLED"]
    await drive(world, 4)
    world.check_whole()


async def test_what_the_engine_has_forgotten_happens_once_all_the_same(world: OutgoingWorld) -> None:
    """Every request of the life is asked again after the engine has forgotten it, its outcome unknown."""
    world.engine.lost_answers = 1
    made = await world.create("ann", "0.5", "w1")
    world.engine.forget()
    for number in range(10):
        # The first request of every second round is lost, and asked again after it was forgotten.
        world.engine.lost_answers = number % 2
        with suppress(ServiceError):
            await world.steps.drive(made.withdrawal_id)
        world.engine.lost_answers = 0
        world.engine.forget()
        await world.chain.grow()
    assert world.statuses("ann") == ["SETTLED"]
    assert world.fees() == FEE
    assert balance(world) == (10 * COIN - COIN // 2 - FEE, 0)
    world.check_whole()


async def test_a_fee_waits_for_the_ledger_where_only_that_can_tell(
    world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.create("ann", "0.5", "w1")
    await world.work()
    await world.chain.grow(2)
    deposit = world.engine.deposit

    async def lost(*values: Any) -> int:
        await deposit(*values)
        raise ServiceError(ErrorReason.UPSTREAM_TIMEOUT)

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "deposit", lost)
        world.restart()
        await world.work()
    world.restart()
    world.engine.forget()
    world.ledger.blind = True
    taken = dict(world.engine.credits)
    await world.work()
    assert (await world.get("ann", made.withdrawal_id)).status == BROADCAST
    world.ledger.blind = False
    await world.work()
    assert world.engine.credits == taken, "taken once"
    assert world.statuses("ann") == ["SETTLED"]


async def test_a_fee_that_was_never_taken_is_taken_late(world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.create("ann", "0.5", "w1")
    await world.work()
    await world.chain.grow(2)

    async def away(*_: Any) -> int:
        raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "deposit", away)
        world.restart()
        await world.work()
        assert world.statuses("ann") == ["BROADCAST"]
    world.restart()
    world.engine.forget()
    await drive(world, 2)
    assert world.statuses("ann") == ["SETTLED"]
    assert world.fees() == FEE


async def test_a_hold_that_somebody_else_has_ended_is_told(world: OutgoingWorld) -> None:
    made = await world.create("ann", "2", "w1")
    hold_id = f"withdrawal:simulated:{made.withdrawal_id}"
    await world.engine.release("ann", hold_id, "by-hand", "")
    cancelled = await world.cancel("ann", made.withdrawal_id)
    assert (cancelled.status, cancelled.problem) == (CANCELLED, "its hold was ended by somebody else")
    assert balance(world) == (10 * COIN, 0)


async def test_a_withdrawal_of_a_network_that_is_gone_waits(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    found = await world.withdrawals.get(made.withdrawal_id)
    world.steps._connectors = {}
    with pytest.raises(ConnectorAway):
        await world.steps.drive(found.withdrawal_id)
    world.restart()
    await drive(world, 4)
    assert world.statuses("ann") == ["SETTLED"]


async def test_an_asset_without_a_fee_settles_without_one(world: OutgoingWorld) -> None:
    world.policy = {"ETH": Decimal(1)}
    world.restart()
    await world.fund("ann", "ETH", "2")
    address = "sim1eth" + "0" * 24
    await world.list_address("ann", address, "ETH")
    made = await world.create("ann", "1", "e1", asset="ETH", address=address)
    await drive(world, 5)
    done = await world.get("ann", made.withdrawal_id)
    assert (done.status, done.fee) == (SETTLED, "0.00000000")
    assert world.fees("ETH") == 0
    assert not [name for name in world.engine.credits if name.startswith("withdrawal-fee")]
    world.check_whole()


async def test_a_network_that_changes_its_mind_is_believed_only_if_it_refuses(
    world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.create("ann", "0.5", "w1")
    await world.work()
    for answer, status in ((None, BROADCAST), (Refused("dropped"), RETURNED)):

        async def outcome(_: str, answer: Any = answer) -> Any:
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(world.chain, "outcome", outcome)
            world.restart()
            await world.work()
        assert (await world.get("ann", made.withdrawal_id)).status == status
    assert balance(world) == (10 * COIN, 0)
    # As the network says: nothing left it.
    world.sql("UPDATE sim_sends SET refused = 'dropped'")


async def test_who_is_overtaken_takes_the_row_as_it_is(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    stale = await world.withdrawals.get(made.withdrawal_id)
    await drive(world, 4)
    after = await world.steps.step(stale)
    assert after is not None
    assert after.status == "SETTLED"
    assert world.sends("ann") == [(TO, COIN // 2)]


async def test_a_hold_that_was_ended_by_hand_after_the_send_is_told(world: OutgoingWorld) -> None:
    made = await world.create("ann", "0.5", "w1")
    await world.work()
    await world.engine.settle("ann", f"withdrawal:simulated:{made.withdrawal_id}", "by-hand", "")
    await drive(world, 4)
    done = await world.get("ann", made.withdrawal_id)
    assert (done.status, done.problem) == (SETTLED, "its hold was ended by somebody else")


@pytest.mark.parametrize(("open_gate", "why"), [(True, ""), (False, "settlement keeps the gate closed: 1 incidents")])
async def test_the_gate_is_settlement_s_word(monkeypatch: pytest.MonkeyPatch, why: str, *, open_gate: bool) -> None:
    class Client:
        channel = None

        async def call(self, method: str, _: Any, *, repeatable: bool, deadline_s: float) -> Any:
            assert (method, repeatable) == ("GetWithdrawalGate", True)
            assert deadline_s <= 3.0
            return settlement_pb.WithdrawalGate(open=open_gate, problem="" if open_gate else "1 incidents")

    class Stub:
        GetWithdrawalGate = "GetWithdrawalGate"

        def __init__(self, channel: object) -> None: ...

    monkeypatch.setattr(settlement_service_pb2_grpc, "SettlementServiceStub", Stub)
    gate = WithdrawalGate(SettlementGate(Client()))  # type: ignore[arg-type]
    assert [await gate.why_closed() for _ in range(2)] == [why, why]
