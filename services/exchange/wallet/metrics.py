"""What Prometheus sees of money in. Gauges are of the whole wallet, as the instance that drives it has counted them last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge

from exchange.wallet import freezes
from exchange.wallet.status import deposit_counts

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from exchange.runtime.database import Database
    from exchange.wallet.status import StatusReader
    from exchange.wallet.worker import Worker

CENSUS_EVERY_S: Final = 5.0
_STATES: Final = ("SEEN", "CONFIRMED", "REVERSING")
_UNASSIGNED: Final = "SELECT count(*) FROM wallet_unassigned WHERE NOT vanished"
_OLDEST: Final = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(seen_at)), 0)::float8 FROM wallet_deposits
WHERE status IN ('SEEN', 'CONFIRMED') OR (status = 'REVERSED' AND reversal <> 'DONE') OR (status = 'CREDITED' AND vanished)
"""


class WalletMetrics:
    """Deposits, custody, freezes and the worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.credited = Counter(
            "pincex_wallet_deposits_credited", "Deposits credited by this instance", registry=registry
        )
        self.reversed = Counter(
            "pincex_wallet_deposits_reversed", "Credited deposits that a network took back", registry=registry
        )
        self.deposits = Gauge(
            "pincex_wallet_deposits", "Deposits that are not at their end", ["state"], registry=registry
        )
        self.oldest = Gauge(
            "pincex_wallet_oldest_deposit_seconds", "Age of the oldest deposit not at its end", registry=registry
        )
        self.custody = Gauge(
            "pincex_wallet_custody", "What a network says that we have", ["network", "asset"], registry=registry
        )
        self.frozen = Gauge("pincex_wallet_frozen_accounts", "Accounts that are frozen", registry=registry)
        self.unassigned = Gauge(
            "pincex_wallet_unassigned_deposits", "Transactions to an address that nobody was given", registry=registry
        )

    def watch(self, worker: Worker) -> None:
        """Show whether this instance drives the wallet."""
        driving = Gauge("pincex_wallet_driving", "1 on the instance that drives the wallet", registry=self._registry)
        driving.set_function(lambda: float(worker.is_driving))


class Census:
    """A driver of the worker: counts now and then."""

    name = "census"
    every_s = CENSUS_EVERY_S

    def __init__(self, database: Database, status: StatusReader, metrics: WalletMetrics) -> None:
        self._database = database
        self._status = status
        self._metrics = metrics

    async def drive(self) -> bool:
        """Count once. Raises ServiceError where the database is away."""
        metrics = self._metrics
        async with self._database.connection() as connection:
            counts = {one.state.removeprefix("deposit "): one.count for one in await deposit_counts(connection)}
            metrics.oldest.set(await connection.fetchval(_OLDEST))
            metrics.unassigned.set(await connection.fetchval(_UNASSIGNED))
            metrics.frozen.set(await freezes.count(connection))
        for state in _STATES:
            metrics.deposits.labels(state).set(counts.get(state, 0))
        custody, _ = await self._status.custody()
        for held in custody:
            metrics.custody.labels(held.network, held.asset).set(float(held.amount))
        return False
