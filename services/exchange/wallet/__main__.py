"""The wallet as a process, and KYC in it: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.kyc.kyc import Kyc
from exchange.kyc.service.register import add_kyc_services
from exchange.kyc.service.trading_tiers import AuthLink
from exchange.runtime.database import Database
from exchange.runtime.ending import end_process
from exchange.runtime.http_server import Readiness
from exchange.runtime.service_app import ServiceApp, run_service
from exchange.wallet.address_list import AddressList
from exchange.wallet.addresses import DepositAddresses
from exchange.wallet.approval import ApprovalPolicy
from exchange.wallet.config import SERVICE, Config
from exchange.wallet.crediting import Crediting
from exchange.wallet.deposits import DepositIntake
from exchange.wallet.gate import WithdrawalGate
from exchange.wallet.metrics import Census, WalletMetrics
from exchange.wallet.networks import Networks
from exchange.wallet.outgoing import Outgoing
from exchange.wallet.reversals import Reversals
from exchange.wallet.service.address_list import AddressListCalls
from exchange.wallet.service.deposits import DepositCalls
from exchange.wallet.service.engine import EngineAssets, EngineFunds, SettlementLedger
from exchange.wallet.service.gate import SettlementGate
from exchange.wallet.service.operations import Operations
from exchange.wallet.service.register import add_wallet_services
from exchange.wallet.service.transfers import AnyAccount, TransferCalls, UserAccounts
from exchange.wallet.service.wallet_admin_service import WalletAdminService
from exchange.wallet.service.wallet_service import WalletService
from exchange.wallet.service.withdrawal_operations import WithdrawalOperations
from exchange.wallet.service.withdrawals import WithdrawalCalls
from exchange.wallet.simulated.blocks import Blocks
from exchange.wallet.simulated.network import NETWORK, SimulatedNetwork
from exchange.wallet.status import StatusReader
from exchange.wallet.stops import Stops
from exchange.wallet.transfers import Transfers
from exchange.wallet.withdrawal_metrics import WithdrawalMetrics
from exchange.wallet.withdrawal_steps import WithdrawalSteps
from exchange.wallet.withdrawals import Withdrawals
from exchange.wallet.worker import State, Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from exchange.wallet.worker import Driver

_NOT_YET: Final = frozenset({State.STARTING, State.WAITING_FOR_DATABASE})


class App(ServiceApp):
    """Everything of one instance, wired."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.common, config.database_url)
        url = config.database_url.reveal()
        self.database = Database(url, self.instance)
        self.kyc = Kyc(
            config.kyc,
            self.database,
            AuthLink(self.client),
            trail=self.audit.trail,
            registry=self.registry,
            clock=self.clock,
        )
        self.simulated = _simulated(config, self.database)
        connectors = [] if self.simulated is None else [self.simulated]
        self.networks = Networks(config.networks, connectors, EngineAssets(self.client))
        self._funds, self._ledger = EngineFunds(self.client), SettlementLedger(self.client)
        self.metrics, self._outgoing_metrics = WalletMetrics(self.registry), WithdrawalMetrics(self.registry)
        self._stops = Stops(self.database, WithdrawalGate(SettlementGate(self.client)))
        self._withdrawals = Withdrawals(self.database, self._stops, self.kyc.tiers)
        self._steps = WithdrawalSteps(
            database=self.database,
            withdrawals=self._withdrawals,
            stops=self._stops,
            policy=ApprovalPolicy(config.approval),
            funds=self._funds,
            ledger=self._ledger,
            connectors=self.networks.connectors,
            metrics=self._outgoing_metrics,
        )
        self._transfers = Transfers(
            database=self.database,
            funds=self._funds,
            ledger=self._ledger,
            # In development any name is an account at its first use.
            accounts=AnyAccount() if config.common.runtime.development else UserAccounts(self.client),
            metrics=self._outgoing_metrics,
        )
        self._status = StatusReader(self.database, self.networks, self._withdrawals, self._stops)
        self._serve(config)
        self.worker = Worker(url, self.instance, self._drivers(config))
        self.metrics.watch(self.worker)

    def _serve(self, config: Config) -> None:
        addresses = DepositAddresses(self.database)
        wallet = WalletService(
            DepositCalls(self.database, self.networks, addresses, self._stops),
            WithdrawalCalls(
                database=self.database,
                networks=self.networks,
                withdrawals=self._withdrawals,
                steps=self._steps,
                stops=self._stops,
                tiers=self.kyc.tiers,
            ),
            AddressListCalls(AddressList(self.database, self.networks, config.cooling_s)),
            TransferCalls(self._transfers, self.networks.assets),
        )
        operations = Operations(
            database=self.database,
            networks=self.networks,
            addresses=addresses,
            status=self._status,
            simulated=self.simulated,
        )
        admin = WalletAdminService(operations, WithdrawalOperations(self._withdrawals, self._steps, self._stops))
        add_wallet_services(self.public, self.ops, wallet, admin)
        add_kyc_services(self.public, self.ops, self.kyc)

    def _drivers(self, config: Config) -> list[Driver]:
        drivers: list[Driver] = [
            DepositIntake(self.database, connector, self.networks) for connector in self.networks.connectors.values()
        ]
        drivers += [
            Crediting(self.database, self._funds, self._ledger, self.metrics),
            Reversals(self.database, self._funds, self._ledger, self.metrics),
            Outgoing(
                withdrawals=self._withdrawals,
                steps=self._steps,
                transfers=self._transfers,
                stops=self._stops,
                metrics=self._outgoing_metrics,
            ),
            Census(self.database, self._status, self.metrics),
        ]
        if self.simulated is not None:
            drivers.append(Blocks(self.simulated, config.simulated_block_s))
        return drivers

    def ready(self) -> Readiness:
        """Once the database has answered."""
        return Readiness(ready=self.worker.state not in _NOT_YET, why="the database does not answer yet")

    def role(self) -> str:
        """Whether this instance drives deposits and withdrawals."""
        return "worker" if self.worker.is_driving else "standby"

    async def open(self) -> None:
        """Connects to the database."""
        await self.database.open()

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """The worker, and KYC's own."""
        return self.worker.run(), self.kyc.run()

    async def close(self) -> None:
        """Gives the connections back."""
        await self.database.close()


def _simulated(config: Config, database: Database) -> SimulatedNetwork | None:
    """Where any asset goes over it."""
    depths = [terms.required_confirmations for terms in config.networks if terms.network == NETWORK]
    return SimulatedNetwork(database, seed=config.simulated_seed, depth=max(depths)) if depths else None


if __name__ == "__main__":
    end_process(run_service(SERVICE, Config.read, App))
