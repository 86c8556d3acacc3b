"""Money between accounts of the exchange, lists of addresses, limits, and pages of histories."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet import address_list, freezes, transfers
from exchange.wallet.service import transfers as transfer_calls
from pincex.auth.v1 import auth_admin_service_pb2_grpc
from pincex.auth.v1 import types_pb2 as auth_types
from pincex.wallet.v1 import types_pb2
from pincex.wallet.v1 import wallet_admin_service_pb2 as admin_pb
from pincex.wallet.v1 import wallet_service_pb2 as pb
from tests.integration.wallet.outgoing_world import COIN, TO, OutgoingWorld, TierLimits, drive, outgoing_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.postgres_fixture import Database


@pytest.fixture
async def world(wallet_database: Database) -> AsyncIterator[OutgoingWorld]:
    """`ann` has ten coins, as `bob` has."""
    async with outgoing_world(wallet_database) as found:
        found.clear()
        await found.fund("ann", "BTC", "10")
        await found.fund("bob", "BTC", "10")
        yield found
        found.check()


async def refused(call: Awaitable[Any]) -> str:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.reason_name


def coins(world: OutgoingWorld, account: str) -> Any:
    return Decimal(world.engine.free[account, "BTC"]) / COIN


# --- transfers ---


async def test_a_transfer_moves_money_once(world: OutgoingWorld) -> None:
    first = await world.transfer("ann", "bob", "1.5", "t1")
    assert (first.account, first.to_account, first.amount) == ("ann", "bob", "1.50000000")
    assert first.sequence
    assert await world.transfer("ann", "bob", "1.50", "t1", asset="btc") == first
    assert (coins(world, "ann"), coins(world, "bob")) == (Decimal("8.5"), Decimal("11.5"))
    assert await refused(world.transfer("ann", "bob", "1.6", "t1")) == "DUPLICATE_ID"
    assert await refused(world.transfer("ann", "cid", "1.5", "t1")) == "DUPLICATE_ID"
    assert (await world.transfer("bob", "ann", "1.5", "t1")).transfer_id != first.transfer_id


async def test_a_bad_transfer_has_a_reason_and_moves_nothing(world: OutgoingWorld) -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({"amount": "0"}, "NOT_POSITIVE"),
        ({"amount": "-1"}, "NOT_POSITIVE"),
        ({"amount": "NaN"}, "INVALID_DECIMAL"),
        ({"amount": "1e-3"}, "INVALID_DECIMAL"),
        ({"amount": "0.000000001"}, "INVALID_FIELD"),
        ({"amount": "99999999999999999999"}, "NUMBER_TOO_LARGE"),
        ({"amount": "10.00000001"}, "INSUFFICIENT_FUNDS"),
        ({"asset": ""}, "FIELD_REQUIRED"),
        ({"asset": "XYZ"}, "UNKNOWN_ASSET"),
        ({"asset": "ETH"}, "INSUFFICIENT_FUNDS"),
        ({"to_account": ""}, "FIELD_REQUIRED"),
        ({"to_account": "ann"}, "INVALID_FIELD"),
        ({"to_account": "$fees"}, "INVALID_FIELD"),
        ({"to_account": "two words"}, "INVALID_FIELD"),
        ({"request_id": ""}, "FIELD_REQUIRED"),
        ({"request_id": "a b"}, "INVALID_FIELD"),
    ]
    for number, (fields, reason) in enumerate(cases):
        values = {"to_account": "bob", "amount": "1", "request_id": f"t{number}", **fields}
        assert await refused(world.transfer("ann", **values)) == reason, fields
    assert (coins(world, "ann"), coins(world, "bob")) == (10, 10)
    world.as_user("ann")
    assert not (await world.transfer_calls.list(pb.ListTransfersRequest())).transfers


async def test_a_refused_transfer_stays_refused(world: OutgoingWorld) -> None:
    assert await refused(world.transfer("ann", "bob", "11", "t1")) == "INSUFFICIENT_FUNDS"
    await world.transfer("bob", "ann", "5", "t1")
    assert await refused(world.transfer("ann", "bob", "11", "t1")) == "INSUFFICIENT_FUNDS"
    assert coins(world, "ann") == 15


async def test_a_frozen_account_sends_nothing_and_receives(world: OutgoingWorld) -> None:
    async with world.outside.connection() as connection:
        await freezes.freeze(connection, "ann", "suspicious", "operator")
    assert await refused(world.transfer("ann", "bob", "1", "t1")) == "ACCOUNT_FROZEN"
    assert (await world.transfer("bob", "ann", "1", "t1")).sequence


async def test_a_transfer_whose_outcome_is_unknown_is_carried_out_by_the_worker(world: OutgoingWorld) -> None:
    for request_id, fault, reason in (
        ("before", "away", "UPSTREAM_UNAVAILABLE"),
        ("after", "lost_answers", "UPSTREAM_TIMEOUT"),
    ):
        setattr(world.engine, fault, 1)
        assert await refused(world.transfer("ann", "bob", "1", request_id)) == reason
        await world.work()
        assert (await world.transfer("ann", "bob", "1", request_id)).sequence
    assert (coins(world, "ann"), coins(world, "bob")) == (8, 12)


async def test_the_worker_leaves_what_is_new_to_the_call_that_waits_for_it(world: OutgoingWorld) -> None:
    await world.list_address("ann")
    world.engine.away = 2
    assert await refused(world.transfer("ann", "bob", "1", "t1")) == "UPSTREAM_UNAVAILABLE"
    assert (await world.create("ann", "1", "w1")).status == types_pb2.REQUESTED
    for age, due in ((timedelta(minutes=1), 0), (timedelta(0), 1)):
        assert len(await world.withdrawals.due(0, 10, age)) == due
        assert len(await world.transfers.due(0, 10, age)) == due
    await world.outgoing.drive()
    assert world.statuses("ann") == ["AWAITING_APPROVAL"]
    # With its hold it waits for nobody any more, however young it is.
    await world.approve((await world.withdrawals.page("ann", "", 0, 1))[0].withdrawal_id)
    assert len(await world.withdrawals.due(0, 10, timedelta(minutes=1))) == 1
    await drive(world)


async def test_what_the_engine_has_forgotten_is_looked_up_in_the_ledger(world: OutgoingWorld) -> None:
    world.engine.lost_answers = 1
    assert await refused(world.transfer("ann", "bob", "1", "done")) == "UPSTREAM_TIMEOUT"
    world.engine.away = 1
    assert await refused(world.transfer("ann", "bob", "2", "never")) == "UPSTREAM_UNAVAILABLE"
    world.engine.forget()
    world.ledger.blind = True
    await world.work()
    assert await refused(world.transfer("ann", "bob", "1", "done")) == "REQUEST_TOO_OLD", "nobody can tell yet"
    world.ledger.blind = False
    await world.work()
    assert (await world.transfer("ann", "bob", "1", "done")).sequence
    assert await refused(world.transfer("ann", "bob", "2", "never")) == "REQUEST_TOO_OLD"
    assert (coins(world, "ann"), coins(world, "bob")) == (9, 11)


async def test_one_that_is_stuck_keeps_no_other_and_rests(
    world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(world.outgoing, "_monotonic", lambda: now)
    asked = []

    async def broken(account: str, *values: Any) -> int:
        asked.append(account)
        raise ValueError(f"a defect {values}")

    world.sql(
        "INSERT INTO wallet_transfers (transfer_id, account, to_account, request_id, request_hash, asset, decimals, amount)"
        " VALUES ('t-stuck', 'ann', 'bob', 'stuck', '', 'BTC', 8, 1)"
    )
    with monkeypatch.context() as patch:
        patch.setattr(world.transfers, "_funds", type("Broken", (), {"transfer": staticmethod(broken)}))
        await world.outgoing.drive()
        await world.outgoing.drive()
        assert asked == ["ann"], "it rests"
        now += 0.3
        await world.outgoing.drive()
        now += 0.3
        await world.outgoing.drive()
        assert asked == ["ann", "ann"], "longer after each failure"
    now += 60.0
    await world.outgoing.drive()
    assert (coins(world, "bob") - 10) * COIN == 1


async def test_what_waits_for_its_network_is_looked_at_once_a_second(
    world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(world.outgoing, "_monotonic", lambda: now)
    drive_one, driven = world.steps.drive, []

    async def counted(withdrawal_id: str) -> Any:
        driven.append(now)
        return await drive_one(withdrawal_id)

    monkeypatch.setattr(world.steps, "drive", counted)
    await world.list_address("ann")
    await world.create("ann", "0.1", "w1")
    for now in (0.0, 0.5, 0.9, 1.1):  # noqa: B007 - the clock reads it
        await world.outgoing.drive()
    assert driven == [0.0, 1.1]
    assert world.statuses("ann") == ["BROADCAST"]
    await world.chain.grow(2)
    now = 2.2
    await world.outgoing.drive()
    assert world.statuses("ann") == ["SETTLED"]


async def test_a_request_id_is_looked_up_without_reading_the_account_s_transfers(world: OutgoingWorld) -> None:
    """Also on a table that was never analysed."""
    async with world.database.transaction() as connection:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute("PREPARE known (text, text) AS " + transfers.KNOWN)
        plan = await connection.fetch("EXPLAIN EXECUTE known ('ann', 't1')")
        await connection.execute("DEALLOCATE known")
    assert "wallet_transfers_account_request_id_key" in plan[0][0]


async def test_transfers_come_in_pages_and_names_of_the_sender_stay_his(world: OutgoingWorld) -> None:
    for number in range(3):
        await world.transfer("ann", "bob", "0.1", f"a{number}")
        await world.transfer("bob", "ann", "0.1", f"b{number}")
    world.as_user("bob")
    first = await world.transfer_calls.list(pb.ListTransfersRequest(page_size=4))
    rest = await world.transfer_calls.list(pb.ListTransfersRequest(page_size=4, page_token=first.next_page_token))
    seen = [*first.transfers, *rest.transfers]
    assert [one.request_id for one in seen] == ["b2", "", "b1", "", "b0", ""]
    assert not rest.next_page_token
    world.as_user("ann")
    foreign = world.transfer_calls.list(pb.ListTransfersRequest(page_token=first.next_page_token))
    assert await refused(foreign) == "INVALID_PAGE_TOKEN"
    assert await refused(world.transfer_calls.list(pb.ListTransfersRequest(page_size=501))) == "INVALID_FIELD"


async def test_only_accounts_of_users_get_transfers_where_users_log_in() -> None:
    class Client:
        channel = None

        async def call(self, method: Any, request: Any, *, repeatable: bool) -> Any:
            del method
            assert repeatable
            if request.user_id == "7":
                return auth_types.User(user_id="7", accounts=["7", "7.savings"])
            raise ServiceError(
                ErrorReason.UPSTREAM_UNAVAILABLE if request.user_id == "8" else ErrorReason.USER_NOT_FOUND
            )

    class Stub:
        GetUserByAdmin = None

        def __init__(self, channel: object) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth_admin_service_pb2_grpc, "AuthAdminServiceStub", Stub)
        accounts = transfer_calls.UserAccounts(Client())  # type: ignore[arg-type]
        assert [await accounts.exists(one) for one in ("7", "7.savings", "7.other", "9", "demo")] == [
            True,
            True,
            False,
            False,
            False,
        ]
        assert await refused(accounts.exists("8")) == "UPSTREAM_UNAVAILABLE"


# --- the list of addresses ---


async def test_an_address_is_usable_after_the_cooling_off(world: OutgoingWorld) -> None:
    world.cooling_s = 3600
    world.restart()
    listed = await world.list_address("ann")
    assert 3590 < listed.usable_time.seconds - listed.created_time.seconds <= 3600
    with pytest.raises(ServiceError) as caught:
        await world.create("ann", "0.5", "w1")
    assert caught.value.reason_name == "ADDRESS_COOLING_OFF"
    assert caught.value.retry_after_seconds is not None
    assert 3000 < caught.value.retry_after_seconds <= 3600
    assert world.statuses("ann") == []
    assert await world.list_address("ann") == listed, "listed again, it does not begin anew"
    world.sql("UPDATE withdrawal_addresses SET usable_at = clock_timestamp()")
    assert (await world.create("ann", "0.5", "w1")).hold_sequence


async def test_an_address_is_of_one_account_and_one_asset_and_can_be_taken_off(world: OutgoingWorld) -> None:
    listed = await world.list_address("ann")
    assert await refused(world.create("bob", "0.5", "w1")) == "ADDRESS_NOT_LISTED"
    world.as_user("bob")
    remove = pb.RemoveWithdrawalAddressRequest(address_id=listed.address_id)
    assert await refused(world.listed.remove(remove)) == "ADDRESS_NOT_LISTED"
    world.as_user("ann")
    for _ in range(2):
        await world.listed.remove(remove)
    assert await refused(world.listed.remove(pb.RemoveWithdrawalAddressRequest())) == "FIELD_REQUIRED"
    assert await refused(world.create("ann", "0.5", "w1")) == "ADDRESS_NOT_LISTED"
    again = await world.list_address("ann")
    assert again.address_id != listed.address_id


async def test_bad_addresses_have_reasons(world: OutgoingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.as_user("ann")
    for fields, reason in (
        ({"address": ""}, "FIELD_REQUIRED"),
        ({"address": "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"}, "INVALID_FIELD"),
        ({"address": TO.upper()}, "INVALID_FIELD"),
        ({"label": ""}, "FIELD_REQUIRED"),
        ({"label": "x" * 65}, "INVALID_FIELD"),
        ({"label": "two\nlines"}, "INVALID_FIELD"),
        ({"asset": "ETH"}, "INVALID_FIELD"),
        ({"asset": "XYZ"}, "UNKNOWN_ASSET"),
        ({"network": "lightning"}, "UNKNOWN_NETWORK"),
    ):
        values = {"asset": "BTC", "address": TO, "label": "mine", **fields}
        assert await refused(world.listed.add(pb.AddWithdrawalAddressRequest(**values))) == reason, fields
    monkeypatch.setattr(address_list, "MAX_ADDRESSES", 1)
    await world.list_address("ann")
    assert await refused(world.list_address("ann", TO[:-1] + "2")) == "QUOTA_EXCEEDED"


async def test_addresses_come_in_pages_by_asset_and_label(world: OutgoingWorld) -> None:
    world.as_user("ann")
    for label, asset in (("Žofie", "BTC"), ("a", "ETH"), ("b", "BTC"), ("a", "BTC")):
        address = f"sim1{asset.lower()}" + f"{ord(label[0]):024x}"
        await world.listed.add(pb.AddWithdrawalAddressRequest(asset=asset, address=address, label=label))
    seen, token = [], ""
    for _ in range(4):
        page = await world.listed.list(pb.ListWithdrawalAddressesRequest(page_size=1, page_token=token))
        seen += [(one.asset, one.label) for one in page.addresses]
        token = page.next_page_token
    assert seen == [("BTC", "a"), ("BTC", "b"), ("BTC", "Žofie"), ("ETH", "a")]
    assert not token
    bad = paging.make_token("[1, 2]", "addresses", "ann")
    for other in (bad, paging.make_token('["a", "b", -1]', "addresses", "ann"), "nonsense"):
        call = world.listed.list(pb.ListWithdrawalAddressesRequest(page_token=other))
        assert await refused(call) == "INVALID_PAGE_TOKEN"


# --- limits ---


async def test_a_user_s_accounts_share_one_limit_and_two_at_once_do_not_pass_it(world: OutgoingWorld) -> None:
    world.tiers.limits = TierLimits(1, {"BTC": Decimal(1)})
    await world.list_address("ann")
    await world.list_address("bob")
    calls = [world.create(account, "0.4", "w1", user="7") for account in ("ann", "bob")]
    calls += [world.create(account, "0.4", "w2", user="7") for account in ("ann", "bob")]
    # Each in a context of its own, as the calls of a server are.
    found = await asyncio.gather(*(asyncio.create_task(call) for call in calls), return_exceptions=True)
    passed = [one for one in found if not isinstance(one, BaseException)]
    assert len(passed) == 2
    assert {one.reason_name for one in found if isinstance(one, ServiceError)} == {"WITHDRAWAL_LIMIT"}
    world.as_user("ann", "7")
    limits = await world.calls.limits(pb.GetWithdrawalLimitsRequest())
    assert limits.kyc_tier == 1
    assert [(one.asset, one.daily_limit, one.used, one.left) for one in limits.limits] == [
        ("BTC", "1.00000000", "0.80000000", "0.20000000"),
        ("ETH", "0.00000000", "0.00000000", "0.00000000"),
        ("USD", "0.00", "0.00", "0.00"),
    ]
    with pytest.raises(ServiceError) as caught:
        await world.create("ann", "0.20000001", "w3", user="7")
    assert caught.value.metadata["left"] == "0.20000000"
    await world.create("ann", "0.2", "w3", user="7")
    await drive(world, 4)


async def test_what_did_not_go_out_and_what_is_a_day_old_does_not_count(world: OutgoingWorld) -> None:
    world.tiers.limits = TierLimits(1, {"BTC": Decimal(1)})
    await world.list_address("ann")
    made = await world.create("ann", "1", "w1")
    assert await refused(world.create("ann", "0.001", "w2")) == "WITHDRAWAL_LIMIT"
    await world.cancel("ann", made.withdrawal_id)
    made = await world.create("ann", "1", "w3")
    await world.reject(made.withdrawal_id)
    await world.create("ann", "1", "w4")
    world.sql("ALTER TABLE withdrawals DISABLE TRIGGER withdrawals_forward")
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '24 hours'")
    world.sql("ALTER TABLE withdrawals ENABLE TRIGGER withdrawals_forward")
    await world.create("ann", "1", "w5")


async def test_a_tier_that_allows_nothing_says_what_is_missing(world: OutgoingWorld) -> None:
    await world.list_address("ann")
    world.tiers.own["account:ann"] = TierLimits(0, {})
    assert await refused(world.create("ann", "0.5", "w1")) == "KYC_REQUIRED"
    world.tiers.own["account:ann"] = TierLimits(1, {"USD": Decimal(5)})
    assert await refused(world.create("ann", "0.5", "w1")) == "KYC_REQUIRED"
    world.tiers.own["account:ann"] = TierLimits(1, {"BTC": Decimal("0.1")})
    assert await refused(world.create("ann", "0.5", "w1")) == "WITHDRAWAL_LIMIT"
    assert world.statuses("ann") == []


# --- histories ---


async def test_withdrawals_come_in_pages(world: OutgoingWorld) -> None:
    await world.list_address("ann")
    for number in range(3):
        await world.create("ann", "0.75", f"w{number}")
    world.as_user("ann")
    seen, token = [], ""
    for _ in range(2):
        page = await world.calls.list(pb.ListWithdrawalsRequest(asset="btc", page_size=2, page_token=token))
        seen += [one.request_id for one in page.withdrawals]
        token = page.next_page_token
    assert seen == ["w2", "w1", "w0"]
    first = await world.calls.list(pb.ListWithdrawalsRequest(page_size=2))
    other = pb.ListWithdrawalsRequest(asset="BTC", page_token=first.next_page_token)
    assert await refused(world.calls.list(other)) == "INVALID_PAGE_TOKEN"
    of_another_list = pb.ListWithdrawalsRequest(page_token=paging.make_token("2", "deposits", "ann", ""))
    assert await refused(world.calls.list(of_another_list)) == "INVALID_PAGE_TOKEN"
    assert not (await world.calls.list(pb.ListWithdrawalsRequest(asset="USD"))).withdrawals
    world.as_user("operator")
    pending = await world.operations.pending(admin_pb.ListPendingWithdrawalsRequest(page_size=2))
    rest = admin_pb.ListPendingWithdrawalsRequest(page_token=pending.next_page_token)
    names = [one.request_id for one in (*pending.withdrawals, *(await world.operations.pending(rest)).withdrawals)]
    assert names == ["w0", "w1", "w2"]
    assert [(one.status, one.count) for one in await world.withdrawals.counts()] == [("AWAITING_APPROVAL", 3)]


async def test_the_database_itself_lets_no_withdrawal_go_back(world: OutgoingWorld) -> None:
    await world.list_address("ann")
    await world.create("ann", "0.5", "w1")
    for change in ("status = 'REQUESTED'", "amount = amount + 1", "address = 'elsewhere'"):
        with pytest.raises(Exception, match="withdrawal"):
            world.sql(f"UPDATE withdrawals SET {change}")
    await drive(world, 4)
    with pytest.raises(Exception, match="SETTLED"):
        world.sql("UPDATE withdrawals SET status = 'RETURNED', ending = 'RETURNED'")
