"""The world of deposits with money that goes out: withdrawals and transfers, in the same wallet, driven by the same worker."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from exchange.domain.decimals import parse_units
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import ALL_SCOPES, Principal
from exchange.runtime.request import RequestContext, set_request_context
from exchange.wallet.address_list import AddressList
from exchange.wallet.approval import ApprovalPolicy
from exchange.wallet.connector import ConnectorAway
from exchange.wallet.gate import WithdrawalGate
from exchange.wallet.outgoing import Outgoing
from exchange.wallet.service.address_list import AddressListCalls
from exchange.wallet.service.transfers import AnyAccount, TransferCalls
from exchange.wallet.service.withdrawal_operations import WithdrawalOperations
from exchange.wallet.service.withdrawals import WithdrawalCalls
from exchange.wallet.stops import Stops
from exchange.wallet.transfers import Transfers
from exchange.wallet.withdrawal_metrics import WithdrawalMetrics
from exchange.wallet.withdrawal_steps import FEE_ACCOUNT, WithdrawalSteps
from exchange.wallet.withdrawals import Withdrawals
from pincex.wallet.v1 import wallet_admin_service_pb2 as admin_pb
from pincex.wallet.v1 import wallet_service_pb2 as pb
from tests.integration.wallet.crashes import Fused
from tests.integration.wallet.fakes import DECIMALS, FakeEngine, FakeLedger
from tests.integration.wallet.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from pincex.wallet.v1 import types_pb2
    from tests import postgres_fixture

TO = "sim1btc" + "0" * 23 + "1"
BURNT = "sim1btcdead" + "0" * 20
FEE = 10_000
COIN = 10**8
_TABLES = "withdrawals, withdrawal_addresses, wallet_transfers"
_OPEN = "status NOT IN ('SETTLED', 'WITHDRAWAL_CANCELLED', 'REJECTED', 'RETURNED')"


@dataclass
class Gate:
    """Settlement's gate; `why` keeps it closed, `away` makes it unreachable."""

    why: str = ""
    away: bool = False

    async def why_closed(self) -> str:
        if self.away:
            raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)
        return self.why


@dataclass(frozen=True)
class TierLimits:
    tier: int
    daily: Mapping[str, Decimal]


@dataclass
class Tiers:
    """Everybody has the same, but for those named."""

    limits: TierLimits = TierLimits(2, {"BTC": Decimal(1000), "ETH": Decimal(1000), "USD": Decimal(100_000)})
    own: dict[str, TierLimits] = field(default_factory=dict)

    async def of(self, user: str) -> TierLimits:
        return self.own.get(user, self.limits)


class OutgoingEngine(FakeEngine):
    """Remembers for the ledger which transfers it has carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.transfers: dict[str, int] = {}

    async def transfer(
        self,
        account: str,
        to_account: str,
        asset: str,
        amount: str,
        request_id: str,
        reason: str,
        asked_at: datetime | None = None,
    ) -> int:
        try:
            return await super().transfer(account, to_account, asset, amount, request_id, reason, asked_at)
        finally:
            _, sequence, refusal = self.answers.get((account, request_id), ((), 0, 1))
            if not refusal:
                self.transfers[request_id] = sequence


class OutgoingLedger(FakeLedger):
    """Knows transfers, too. `blind`: it says nothing of what it has, as one that has stopped."""

    blind = False

    async def credited(self, account: str, asset: str, request_id: str, since: object = None) -> int | None:
        return None if self.blind else await super().credited(account, asset, request_id)

    async def transferred(self, account: str, asset: str, request_id: str, since: object) -> int | None:
        del account, asset, since
        assert isinstance(self._engine, OutgoingEngine)
        return None if self.blind else self._engine.transfers.get(request_id, 0)


class OutgoingWorld(World):
    """`as_user` says who makes the next calls; `create` and the like are the calls, as the contract has them."""

    cooling_s = 0

    def __init__(self, database: postgres_fixture.Database, *, seed: int = 0) -> None:
        self.gate = Gate()
        self.tiers = Tiers()
        self.policy = {"BTC": Decimal("0.5")}
        self.accounts: Any = AnyAccount()
        self.requests = 0
        super().__init__(database, seed=seed)
        self.engine: OutgoingEngine = OutgoingEngine()
        self.ledger: OutgoingLedger = OutgoingLedger(self.engine)
        self.restart()

    def restart(self) -> None:
        """A new process."""
        super().restart()
        connectors: dict[str, Any] = {"simulated": self.networks.connectors["simulated"]}
        metrics = WithdrawalMetrics(CollectorRegistry())
        gate: Any = Fused(self.gate, self.fuse)
        self.stops = Stops(self.database, WithdrawalGate(gate, self._clock))
        self.withdrawals = Withdrawals(self.database, self.stops, self.tiers)
        self.steps = WithdrawalSteps(
            database=self.database,
            withdrawals=self.withdrawals,
            stops=self.stops,
            policy=ApprovalPolicy(self.policy),
            funds=self.funds,
            ledger=self.losses,
            connectors=connectors,
            metrics=metrics,
        )
        self.transfers = Transfers(
            database=self.database, funds=self.funds, ledger=self.losses, accounts=self.accounts, metrics=metrics
        )
        self.outgoing = Outgoing(
            withdrawals=self.withdrawals,
            steps=self.steps,
            transfers=self.transfers,
            stops=self.stops,
            metrics=metrics,
            monotonic=self._clock,
            left_to_calls=timedelta(),
        )
        self.drivers.append(self.outgoing)
        self.listed = AddressListCalls(AddressList(self.database, self.networks, self.cooling_s))
        self.calls = WithdrawalCalls(
            database=self.database,
            networks=self.networks,
            withdrawals=self.withdrawals,
            steps=self.steps,
            stops=self.stops,
            tiers=self.tiers,
        )
        self.operations = WithdrawalOperations(self.withdrawals, self.steps, self.stops)
        self.transfer_calls = TransferCalls(self.transfers, self.assets)

    now_s = 0.0

    def _clock(self) -> float:
        """Each look is a minute later: nothing is kept, and nothing that failed rests."""
        OutgoingWorld.now_s += 60.0
        return OutgoingWorld.now_s

    # --- calls ---

    def as_user(self, account: str, user: str = "") -> None:
        """Who calls from now on."""
        principal = Principal(account=account, roles=frozenset(), source="development", scopes=ALL_SCOPES, user=user)
        set_request_context(RequestContext(request_id="", principal=principal, deadline=None, method="", peer=""))

    async def fund(self, account: str, asset: str, amount: str) -> None:
        """Money on the account that the network has too."""
        units = parse_units(amount, DECIMALS[asset])
        await self.pay_in(account, asset, units)
        before = self.engine.free[account, asset]
        for _ in range(10):
            await self.chain.grow()
            await self.work()
            if self.engine.free[account, asset] == before + units:
                return
        raise AssertionError("not credited")

    async def list_address(self, account: str, address: str = TO, asset: str = "BTC") -> types_pb2.WithdrawalAddress:
        """Put an address on the account's list."""
        self.as_user(account)
        return await self.listed.add(
            pb.AddWithdrawalAddressRequest(asset=asset, network="simulated", address=address, label="mine")
        )

    async def create(self, account: str, amount: str, request_id: str, **fields: str) -> types_pb2.Withdrawal:
        """Ask for a withdrawal of BTC to TO."""
        self.as_user(account, fields.pop("user", ""))
        values = {"asset": "BTC", "address": TO, "network": "simulated", **fields}
        return await self.calls.create(pb.CreateWithdrawalRequest(amount=amount, request_id=request_id, **values))

    async def get(self, account: str, withdrawal_id: str) -> types_pb2.Withdrawal:
        self.as_user(account)
        return await self.calls.get(pb.GetWithdrawalRequest(withdrawal_id=withdrawal_id))

    async def cancel(self, account: str, withdrawal_id: str) -> types_pb2.Withdrawal:
        self.as_user(account)
        return await self.calls.cancel(pb.CancelWithdrawalRequest(withdrawal_id=withdrawal_id))

    async def approve(self, withdrawal_id: str, who: str = "operator", user: str = "") -> types_pb2.Withdrawal:
        self.as_user(who, user)
        return await self.operations.approve(admin_pb.ApproveWithdrawalRequest(withdrawal_id=withdrawal_id))

    async def reject(self, withdrawal_id: str, reason: str = "no") -> types_pb2.Withdrawal:
        self.as_user("operator")
        return await self.operations.reject(
            admin_pb.RejectWithdrawalRequest(withdrawal_id=withdrawal_id, reason=reason)
        )

    async def transfer(self, account: str, to_account: str, amount: str, request_id: str, asset: str = "BTC") -> Any:
        self.as_user(account)
        return await self.transfer_calls.create(
            pb.CreateTransferRequest(to_account=to_account, asset=asset, amount=amount, request_id=request_id)
        )

    # --- what is so ---

    def statuses(self, account: str) -> list[str]:
        """Of its withdrawals, in order."""
        return [
            status
            for (status,) in self.sql("SELECT status FROM withdrawals WHERE account = %s ORDER BY number", account)
        ]

    def sends(self, account: str) -> list[tuple[str, int]]:
        """(address, amount) of all that the network was ever told to send for an account."""
        rows = self.sql(
            "SELECT s.address, s.amount FROM sim_sends s JOIN withdrawals USING (withdrawal_id) WHERE account = %s",
            account,
        )
        return [(address, amount) for address, amount in rows]

    def under_way(self) -> list[tuple[Any, ...]]:
        """Deposits, withdrawals and transfers that are not at their end."""
        return [
            *super().under_way(),
            *self.sql(f"SELECT withdrawal_id, status, ending, problem FROM withdrawals WHERE {_OPEN}"),
            *self.sql("SELECT transfer_id, status FROM wallet_transfers WHERE status = 'REQUESTED'"),
        ]

    def money_going_out(self, asset: str) -> int:
        """What the network has sent and the engine still has, less fees that are settled and not taken yet."""
        going = 0
        for number, network, amount, fee, sent in self.sql(
            "SELECT withdrawal_id, network, w.amount, fee, s.withdrawal_id IS NOT NULL AND s.refused IS NULL"
            " FROM withdrawals w LEFT JOIN sim_sends s USING (withdrawal_id) WHERE w.asset = %s",
            asset,
        ):
            name = f"{network}:{number}"
            settled = self.engine.settled.get(f"withdrawal:{name}", ("", "", 0))[2]
            taken = self.engine.credits.get(f"withdrawal-fee:{name}", ("", "", 0))[2]
            assert settled in {0, amount + fee}, "settled whole or not at all"
            assert taken in {0, fee}, "the fee is taken whole or not at all"
            assert sent or not settled, "settled though the network has not sent it"
            assert settled or not taken, "a fee of what was not settled"
            going += (amount if sent else 0) - settled + taken
        return going

    def check(self) -> None:
        """As in the world of deposits; and nothing is held but by withdrawals that are not at their end."""
        super().check()
        open_holds = {
            f"withdrawal:{network}:{number}"
            for number, network in self.sql(f"SELECT withdrawal_id, network FROM withdrawals WHERE {_OPEN}")
        }
        held = {name for _, name in self.engine.holds if name.startswith("withdrawal:")}
        assert held <= open_holds
        assert all(units >= 0 for units in self.engine.held.values())

    def fees(self, asset: str = "BTC") -> int:
        """What the exchange has earned."""
        return self.engine.free[FEE_ACCOUNT, asset]

    def clear(self) -> None:
        """Empty tables, for the next history."""
        self.sql(f"TRUNCATE {_TABLES} CASCADE")
        self.sql("UPDATE withdrawal_stop SET stopped = false")
        super().clear()


async def drive(world: OutgoingWorld, rounds: int = 8) -> None:
    """Blocks and work."""
    for _ in range(rounds):
        await world.chain.grow()
        try:
            await world.work()
        except ConnectorAway:
            continue


@asynccontextmanager
async def outgoing_world(database: postgres_fixture.Database, *, seed: int = 0) -> AsyncIterator[OutgoingWorld]:
    """A world, connected."""
    world = OutgoingWorld(database, seed=seed)
    await world.database.open()
    await world.outside.open()
    try:
        yield world
    finally:
        await world.database.close()
        await world.outside.close()
        world.owner.close()
