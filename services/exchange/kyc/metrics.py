"""What Prometheus sees of KYC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class KycMetrics:
    """Of one instance; the gauges are those of all, as the instance that works has counted them last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge("pincex_kyc_waiting_cases", "Cases that wait for a reviewer", registry=registry)
        self.untold = Gauge(
            "pincex_kyc_untold_tiers", "Tiers that the auth service does not know of yet", registry=registry
        )
        self.decisions = Counter("pincex_kyc_decisions", "Decisions of cases", ["decision"], registry=registry)
        self.failed_screenings = Counter(
            "pincex_kyc_failed_screenings", "Screenings that nobody answered", registry=registry
        )
