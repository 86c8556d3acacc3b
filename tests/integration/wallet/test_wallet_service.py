"""The wallet's contracts about money in, over gRPC, beside a real engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from exchange.runtime.paging import make_token
from exchange.wallet.config import DEFAULT_NETWORKS
from exchange.wallet.connector import ConnectorAway
from exchange.wallet.worker import WORKER_LOCK, State
from pincex.wallet.v1 import types_pb2
from pincex.wallet.v1 import wallet_admin_service_pb2 as admin_pb
from pincex.wallet.v1 import wallet_service_pb2 as pb
from tests.integration.trading.engine_app import DEADLINE_S, Exchange, eventually, refused, running_exchange
from tests.integration.wallet.wallet_app import Wallet, running_wallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres_fixture import Database


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    """The development exchange, in memory."""
    async with running_exchange(monkeypatch) as found:
        yield found


@pytest.fixture
async def wallet(monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database) -> AsyncIterator[Wallet]:
    """One instance beside it."""
    async with running_wallet(monkeypatch, exchange, database) as found:
        yield found


async def until(wallet: Wallet, account: str, status: int, count: int = 1) -> list[types_pb2.Deposit]:
    """The account's deposits, once so many have a status."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            page = await wallet.ask("ListDeposits", pb.ListDepositsRequest(), account)
            found = [one for one in page.deposits if one.status == status]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


async def test_from_address_to_balance_and_back(exchange: Exchange, wallet: Wallet) -> None:
    asked = pb.GetDepositAddressRequest(asset="btc")
    address = await wallet.ask("GetDepositAddress", asked, "payer")
    assert (address.asset, address.network) == ("BTC", "simulated")
    assert await wallet.ask("GetDepositAddress", asked, "payer") == address
    wanted = admin_pb.SimulateDepositRequest(address=address.address, asset="BTC", amount="0.5", transaction_id="first")
    for _ in range(2):
        assert (await wallet.operate("SimulateDeposit", wanted)).transaction_id == "first"
    (deposit,) = await until(wallet, "payer", types_pb2.CREDITED)
    assert (deposit.amount, deposit.address, deposit.transaction_id) == ("0.50000000", address.address, "first")
    assert deposit.required_confirmations == 2
    assert deposit.confirmations >= 2
    assert deposit.sequence > 0
    assert deposit.credited_time.seconds >= deposit.seen_time.seconds
    assert deposit.recovered_amount == ""
    assert (await exchange.client("payer").balances())["BTC"] == ("0.50000000", "0.00000000")
    await wallet.operate("SimulateReorg", admin_pb.SimulateReorgRequest(transaction_id="first"))
    (deposit,) = await until(wallet, "payer", types_pb2.REVERSED)
    async with asyncio.timeout(DEADLINE_S):
        while deposit.recovered_amount != "0.50000000":
            (deposit,) = await until(wallet, "payer", types_pb2.REVERSED)
    assert (await exchange.client("payer").balances())["BTC"] == ("0.00000000", "0.00000000")
    status = await wallet.operate("GetWalletStatus", admin_pb.GetWalletStatusRequest())
    assert status.frozen_accounts == 1


async def test_deposits_come_in_pages_the_newest_first(wallet: Wallet) -> None:
    for number in range(3):
        wanted = admin_pb.SimulateDepositRequest(account="payer", asset="USD", amount=f"{number + 1}")
        await wallet.operate("SimulateDeposit", wanted)
    await until(wallet, "payer", types_pb2.CREDITED, 3)
    first = await wallet.ask("ListDeposits", pb.ListDepositsRequest(page_size=2, asset="usd"), "payer")
    rest = pb.ListDepositsRequest(page_size=2, asset="USD", page_token=first.next_page_token)
    second = await wallet.ask("ListDeposits", rest, "payer")
    assert [one.amount for one in (*first.deposits, *second.deposits)] == ["3.00000000", "2.00000000", "1.00000000"]
    assert second.next_page_token == ""
    assert not (await wallet.ask("ListDeposits", pb.ListDepositsRequest(), "another")).deposits
    assert not (await wallet.ask("ListDeposits", pb.ListDepositsRequest(asset="BTC"), "payer")).deposits
    foreign = await refused(wallet.ask("ListDeposits", rest, "another"))
    assert foreign.reason == "INVALID_PAGE_TOKEN", "a token is of its account"
    others = pb.ListWithdrawalsRequest(asset="USD", page_token=first.next_page_token)
    foreign = await refused(wallet.ask("ListWithdrawals", others, "payer"))
    assert foreign.reason == "INVALID_PAGE_TOKEN", "and of its list"


async def test_networks_and_status(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    found = (await wallet.ask("ListNetworks", pb.ListNetworksRequest())).networks
    assert [(one.asset, one.network, one.withdrawal_fee, one.least_withdrawal) for one in found] == [
        ("BTC", "simulated", "0.00010000", "0.00100000"),
        ("ETH", "simulated", "0.00100000", "0.01000000"),
        ("USD", "simulated", "1.00000000", "10.00000000"),
    ]
    assert all(one.deposits_open for one in found)
    assert not any(one.withdrawals_open for one in found), "settlement cannot be asked"
    await wallet.operate("SimulateDeposit", admin_pb.SimulateDepositRequest(account="payer", asset="USD", amount="3"))
    await until(wallet, "payer", types_pb2.CREDITED)
    status = await wallet.operate("GetWalletStatus", admin_pb.GetWalletStatusRequest())
    assert status.withdrawals_stopped
    assert "settlement" in status.problem
    assert [(one.network, one.asset, one.amount) for one in status.custody] == [("simulated", "USD", "3.00000000")]

    async def away(*_: object) -> None:
        raise ConnectorAway("no route")

    for name in ("custody", "new_address", "deposit"):
        monkeypatch.setattr(wallet.app.simulated, name, away)
    status = await wallet.operate("GetWalletStatus", admin_pb.GetWalletStatusRequest())
    assert "simulated does not answer: no route" in status.problem
    assert not status.custody
    unknown = pb.GetDepositAddressRequest(asset="ETH")
    assert (await refused(wallet.ask("GetDepositAddress", unknown, "new"))).reason == "NOT_READY"
    made = admin_pb.SimulateDepositRequest(account="payer", asset="USD", amount="3")
    assert (await refused(wallet.operate("SimulateDeposit", made))).reason == "NOT_READY"


async def test_an_account_is_frozen_and_thawed_again_and_again(wallet: Wallet) -> None:
    thaw = admin_pb.ThawAccountRequest(account="payer", reason="never was")
    assert await wallet.operate("ThawAccount", thaw) == admin_pb.AccountFreeze(account="payer")
    freeze = admin_pb.FreezeAccountRequest(account="payer", reason="asked to")
    for _ in range(2):
        found = await wallet.operate("FreezeAccount", freeze)
        assert found == admin_pb.AccountFreeze(account="payer", frozen=True, reason="asked to")
    assert (await wallet.ask("GetWithdrawalLimits", pb.GetWithdrawalLimitsRequest(), "payer")).frozen
    thaw.reason = "looked into"
    for _ in range(2):
        found = await wallet.operate("ThawAccount", thaw)
        assert found == admin_pb.AccountFreeze(account="payer", frozen=False, reason="looked into")


async def test_bad_input_is_refused_with_its_reason_and_moves_nothing(wallet: Wallet, exchange: Exchange) -> None:
    before = exchange.engine.state.sequence
    address = "sim1btc" + "0" * 24
    taken = {"account": "payer", "asset": "BTC", "amount": "1", "transaction_id": "taken"}
    of_clients: tuple[tuple[str, Any, str], ...] = (
        ("GetDepositAddress", pb.GetDepositAddressRequest(), "FIELD_REQUIRED"),
        ("GetDepositAddress", pb.GetDepositAddressRequest(asset="DOGE"), "UNKNOWN_ASSET"),
        ("GetDepositAddress", pb.GetDepositAddressRequest(asset="BTC", network="moon"), "UNKNOWN_NETWORK"),
        ("ListDeposits", pb.ListDepositsRequest(asset="DOGE"), "UNKNOWN_ASSET"),
        ("ListDeposits", pb.ListDepositsRequest(page_size=501), "INVALID_FIELD"),
        ("ListDeposits", pb.ListDepositsRequest(page_size=-1), "INVALID_FIELD"),
        ("ListDeposits", pb.ListDepositsRequest(page_token="made up"), "INVALID_PAGE_TOKEN"),
        (
            "ListDeposits",
            pb.ListDepositsRequest(page_token=make_token("9" * 20, "demo", "")),
            "INVALID_PAGE_TOKEN",
        ),
    )
    for method, request, reason in of_clients:
        assert (await refused(wallet.ask(method, request))).reason == reason, (method, request)
    simulated = admin_pb.SimulateDepositRequest
    await wallet.operate("SimulateDeposit", simulated(**taken))
    of_operators: tuple[tuple[str, Any, str], ...] = (
        ("FreezeAccount", admin_pb.FreezeAccountRequest(reason="why"), "FIELD_REQUIRED"),
        ("FreezeAccount", admin_pb.FreezeAccountRequest(account="payer"), "FIELD_REQUIRED"),
        ("FreezeAccount", admin_pb.FreezeAccountRequest(account="$fees", reason="why"), "INVALID_FIELD"),
        ("ThawAccount", admin_pb.ThawAccountRequest(account="a b", reason="why"), "INVALID_FIELD"),
        ("ThawAccount", admin_pb.ThawAccountRequest(account="payer", reason="x" * 257), "INVALID_FIELD"),
        ("SimulateDeposit", simulated(asset="BTC", amount="1"), "FIELD_REQUIRED"),
        ("SimulateDeposit", simulated(account="a", address=address, asset="BTC", amount="1"), "FIELD_NOT_ALLOWED"),
        ("SimulateDeposit", simulated(account="payer", asset="DOGE", amount="1"), "UNKNOWN_ASSET"),
        ("SimulateDeposit", simulated(account="payer", asset="BTC", amount="0"), "NOT_POSITIVE"),
        ("SimulateDeposit", simulated(account="payer", asset="BTC", amount="-1"), "NOT_POSITIVE"),
        ("SimulateDeposit", simulated(account="payer", asset="BTC", amount="1e3"), "INVALID_DECIMAL"),
        ("SimulateDeposit", simulated(account="payer", asset="BTC", amount="0.123456789"), "INVALID_FIELD"),
        ("SimulateDeposit", simulated(account="payer", asset="BTC", amount="9" * 20), "NUMBER_TOO_LARGE"),
        ("SimulateDeposit", simulated(address="sim1eth" + "0" * 24, asset="BTC", amount="1"), "INVALID_FIELD"),
        ("SimulateDeposit", simulated(**{**taken, "amount": "2"}), "DUPLICATE_ID"),
        ("SimulateDeposit", simulated(**{**taken, "transaction_id": "a b"}), "INVALID_FIELD"),
        ("SimulateReorg", admin_pb.SimulateReorgRequest(), "FIELD_REQUIRED"),
        ("SimulateReorg", admin_pb.SimulateReorgRequest(transaction_id="none"), "RECORD_NOT_FOUND"),
    )
    for method, request, reason in of_operators:
        assert (await refused(wallet.operate(method, request))).reason == reason, (method, request)
    await until(wallet, "payer", types_pb2.CREDITED)
    assert exchange.engine.state.sequence == before + 1, "the one deposit, and nothing else"


async def test_where_no_simulated_network_runs_nothing_is_simulated(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with running_wallet(monkeypatch, exchange, database, PINCEX_WALLET_NETWORKS=",") as wallet:
        made = admin_pb.SimulateDepositRequest(account="payer", asset="BTC", amount="1")
        assert (await refused(wallet.operate("SimulateDeposit", made))).reason == "UNKNOWN_NETWORK"
        reorg = admin_pb.SimulateReorgRequest(transaction_id="first")
        assert (await refused(wallet.operate("SimulateReorg", reorg))).reason == "UNKNOWN_NETWORK"
        assert not (await wallet.ask("ListNetworks", pb.ListNetworksRequest())).networks


async def test_in_production_nobody_without_a_credential_learns_anything(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    named = {"PINCEX_PROFILE": "production", "PINCEX_WALLET_NETWORKS": DEFAULT_NETWORKS}
    async with running_wallet(monkeypatch, exchange, database, **named) as wallet:
        assert len((await wallet.ask("ListNetworks", pb.ListNetworksRequest())).networks) == 3, "which are no secret"
        for method in ("GetDepositAddress", "ListDeposits"):
            refusal = await refused(wallet.ask(method, getattr(pb, f"{method}Request")()))
            assert refusal.code == "UNAUTHENTICATED", method
        for method in ("GetWalletStatus", "FreezeAccount", "ThawAccount", "SimulateDeposit", "SimulateReorg"):
            refusal = await refused(wallet.operate(method, getattr(admin_pb, f"{method}Request")()))
            assert refusal.code == "UNAUTHENTICATED", method


async def test_a_second_instance_stands_by_and_takes_over(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    holder = await asyncpg.connect(database.admin_url)
    try:
        assert await holder.fetchval("SELECT pg_try_advisory_lock($1)", WORKER_LOCK)
        async with running_wallet(monkeypatch, exchange, database) as wallet:
            worker = wallet.app.worker
            await eventually(lambda: worker.state is State.STANDBY, "it stands by")
            assert wallet.app.role() == "standby"
            assert wallet.app.ready().ready, "it answers calls all the same"
            made = admin_pb.SimulateDepositRequest(account="payer", asset="BTC", amount="1")
            await wallet.operate("SimulateDeposit", made)
            await holder.close()
            await until(wallet, "payer", types_pb2.CREDITED)
            assert wallet.app.role() == "worker"
            # Its session ends, as when the database fails over: it comes back by itself.
            async with wallet.app.database.connection() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%worker'"
                )
            await eventually(lambda: worker.state is State.WAITING_FOR_DATABASE, "it has noticed")
            await wallet.operate("SimulateDeposit", made)
            await until(wallet, "payer", types_pb2.CREDITED, 2)
    finally:
        await holder.close()
