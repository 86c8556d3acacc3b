"""What Prometheus sees of money that goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

    from exchange.wallet.withdrawals import StateCount

_OPEN = ("REQUESTED", "AWAITING_APPROVAL", "APPROVED", "SENDING", "BROADCAST")


class WithdrawalMetrics:
    """Steps of withdrawals and transfers that this instance has made, and how many withdrawals wait where."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._moved = Counter(
            "pincex_wallet_withdrawals", "Withdrawals that came into a state", ["status"], registry=registry
        )
        self._transfers = Counter(
            "pincex_wallet_transfers", "Transfers that came to their end", ["status"], registry=registry
        )
        self._failures = Counter(
            "pincex_wallet_step_failures",
            "Steps of withdrawals and transfers that could not be made, and are made again",
            ["kind"],
            registry=registry,
        )
        self._open = Gauge("pincex_wallet_open_withdrawals", "Withdrawals in a state", ["status"], registry=registry)
        self._stopped = Gauge(
            "pincex_wallet_withdrawals_stopped", "1 while nothing goes out: stopped, or gate closed", registry=registry
        )

    def moved(self, status: str) -> None:
        """A withdrawal came into a state."""
        self._moved.labels(status).inc()

    def transferred(self, status: str) -> None:
        """A transfer came to its end."""
        self._transfers.labels(status).inc()

    def failed(self, kind: str) -> None:
        """A step of a `withdrawal` or `transfer` could not be made."""
        self._failures.labels(kind).inc()

    def seen(self, counts: Iterable[StateCount], *, stopped: bool) -> None:
        """How it stands now."""
        found = {one.status: one.count for one in counts}
        for status in _OPEN:
            self._open.labels(status).set(found.get(status, 0))
        self._stopped.set(stopped)
