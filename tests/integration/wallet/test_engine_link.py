"""What the wallet asks of engine and settlement, of the real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.internal_client import InternalClient
from exchange.wallet.service.engine import EngineAssets, EngineFunds, SettlementLedger
from tests.integration.settlement.settlement_app import running_settlement
from tests.integration.trading.engine_app import Exchange, running_exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.postgres_fixture import Database


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    """The development exchange, in memory."""
    async with running_exchange(monkeypatch) as found:
        yield found


@pytest.fixture
async def client(exchange: Exchange) -> AsyncIterator[InternalClient]:
    """To the engine."""
    found = InternalClient(f"127.0.0.1:{exchange.app.ops.port}", "wallet", None)
    yield found
    await found.close()


async def refusal(call: Awaitable[object]) -> int:
    """With which reason a call is refused."""
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.reason


async def test_money_is_moved_once_for_an_id(client: InternalClient, exchange: Exchange) -> None:
    funds = EngineFunds(client)
    asked_at = datetime.now(UTC) + timedelta(minutes=1)
    first = await funds.deposit("payer", "BTC", "2", "deposit:simulated:1", "why", asked_at)
    assert await funds.deposit("payer", "BTC", "2", "deposit:simulated:1", "why", asked_at) == first
    assert await funds.available("payer", "BTC", first) == "2.00000000"
    assert await funds.available("payer", "USD", first) == "0"
    held = await funds.hold("payer", "BTC", "1.5", "hold-1", "why")
    assert held > first
    assert await refusal(funds.hold("payer", "BTC", "1.5", "hold-2", "why")) == ErrorReason.INSUFFICIENT_FUNDS
    await funds.deposit("payer", "BTC", "2", "deposit:simulated:2", "why")
    again = funds.hold("payer", "BTC", "1.5", "hold-2", "why")
    assert await refusal(again) == ErrorReason.INSUFFICIENT_FUNDS, "the refusal of an id stays, as reversals rely on"
    await funds.settle("payer", "hold-1", "settle:hold-1", "why")
    assert await refusal(funds.settle("payer", "hold-1", "another", "why")) == ErrorReason.HOLD_NOT_FOUND
    await funds.hold("payer", "BTC", "1", "hold-3", "why")
    await funds.release("payer", "hold-3", "release:hold-3", "why")
    await funds.transfer("payer", "taker", "BTC", "0.5", "transfer-1", "why", datetime.now(UTC) + timedelta(minutes=1))
    assert (await exchange.client("payer").balances())["BTC"] == ("2.00000000", "0.00000000")
    assert (await exchange.client("taker").balances())["BTC"] == ("0.50000000", "0.00000000")


async def test_a_request_that_is_too_old_to_be_told_from_a_repeat_is_refused(client: InternalClient) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    old = EngineFunds(client).deposit("payer", "BTC", "2", "deposit:simulated:1", "why", long_ago)
    assert await refusal(old) == ErrorReason.REQUEST_TOO_OLD


async def test_assets_are_known_with_their_decimals(client: InternalClient) -> None:
    assets = EngineAssets(client)
    assert dict(await assets.all()) == {"BTC": 8, "ETH": 8, "USD": 8}
    assert await assets.decimals("BTC") == 8
    assert await refusal(assets.decimals("DOGE")) == ErrorReason.UNKNOWN_ASSET
    assert await refusal(assets.decimals("")) == ErrorReason.FIELD_REQUIRED


async def test_the_ledger_tells_what_was_credited_and_takes_losses_once(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, client: InternalClient, database: Database
) -> None:
    since = datetime.now(UTC) - timedelta(minutes=2)
    sequence = await EngineFunds(client).deposit("payer", "BTC", "2", "deposit:simulated:1", "why")
    async with running_settlement(monkeypatch, exchange, database) as settlement:
        await settlement.settled(exchange)
        to_settlement = InternalClient(f"127.0.0.1:{settlement.app.ops.port}", "wallet", None)
        try:
            ledger = SettlementLedger(to_settlement)
            assert await ledger.credited("payer", "BTC", "deposit:simulated:1", since) == sequence
            assert await ledger.credited("payer", "BTC", "deposit:simulated:2", since) == 0
            lately = datetime.now(UTC) - timedelta(seconds=30)
            assert await ledger.credited("payer", "BTC", "deposit:simulated:2", lately) is None, "it may be on its way"
            loss = ("custody:simulated", "BTC", "0.5", "loss:simulated:1", "it vanished")
            for _ in range(2):
                await ledger.record_loss(*loss)
            more = ledger.record_loss("custody:simulated", "BTC", "1.6", "loss:simulated:2", "more than there is")
            assert await refusal(more) == ErrorReason.INSUFFICIENT_FUNDS
            settlement.app.settler.state = type(settlement.app.settler.state).CATCHING_UP
            assert await ledger.credited("payer", "BTC", "deposit:simulated:2", since) is None, "it may come yet"
        finally:
            await to_settlement.close()
