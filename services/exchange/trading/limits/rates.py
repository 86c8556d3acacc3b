"""New orders in a second: PLACE and REPLACE of an account, and of an API key that has a limit of its own.

Both must have room, else the order is refused before anything is queued, and takes from neither. Cancels never count:
whoever is too fast must be able to get out. An account has one bucket whatever it is reached by: sessions, single calls,
batches, any of its keys.

Clients may be connected to any instance, and instances do not count together. Each grants its share: the limit divided by
the instances that serve now, as far as this one knows them (`Replica.replicas`). An account that uses one connection only
has that share; the edge spreads calls over all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, QuotaViolation, ServiceError
from exchange.runtime.principal import Principal
from exchange.trading.limits.buckets import Bucket, Buckets
from exchange.trading.limits.tiers import BURST_SECONDS, tier_of

COUNT_INSTANCES_EVERY_S: Final = 1.0
"""How long a count of the instances is used."""

LIMIT: Final = "orders_per_second"

_WHOLE: Final = 1 - 1e-4
"""What counts as a whole token: sums of times lose a little, and who waits as long as told must get in."""


class OrderRates:
    """The buckets of one instance. All methods belong to one event loop."""

    def __init__(self, clock: Clock, instances: Callable[[], int]) -> None:
        """`instances` counts those that serve, this one included."""
        self._clock = clock
        self._instances = instances
        self._accounts = Buckets()
        self._keys = Buckets()
        self._share = 1.0
        self._count_again_at = float("-inf")

    @staticmethod
    def is_limited(principal: Principal) -> bool:
        """Whether orders of this principal are counted at all."""
        return bool(tier_of(principal).orders_per_second or principal.max_orders_per_second)

    def take(self, principal: Principal) -> None:
        """Count one new order. Raises ServiceError QUOTA_EXCEEDED, with the time to wait, where there is no room."""
        per_second, own = tier_of(principal).orders_per_second, principal.max_orders_per_second
        if not per_second and not own:
            return
        now = self._clock.monotonic()
        share = self._share_at(now)
        account = _filled(self._accounts, principal.account, per_second * share, now) if per_second else None
        key = _filled(self._keys, principal.api_key, own * share, now) if own else None
        if account is not None and account.tokens < _WHOLE:
            raise _refusal(f"account:{principal.account}", account, per_second, share)
        if key is not None and key.tokens < _WHOLE:
            raise _refusal(f"api-key:{principal.api_key}", key, own, share)
        for bucket in (account, key):
            if bucket is not None:
                bucket.tokens -= 1

    def left(self, principal: Principal) -> int:
        """New orders that this instance would take at once now; 0 where there is no limit as well."""
        per_second, own = tier_of(principal).orders_per_second, principal.max_orders_per_second
        now = self._clock.monotonic()
        share = self._share_at(now)
        found = []
        if per_second:
            found.append(_filled(self._accounts, principal.account, per_second * share, now).tokens)
        if own:
            found.append(_filled(self._keys, principal.api_key, own * share, now).tokens)
        return int(min(found, default=0) + 1 - _WHOLE)

    def _share_at(self, now: float) -> float:
        if now >= self._count_again_at:
            self._count_again_at = now + COUNT_INSTANCES_EVERY_S
            self._share = 1 / max(self._instances(), 1)
        return self._share


def _burst(rate: float) -> float:
    """At least one order, whatever the share."""
    return max(rate * BURST_SECONDS, 1.0)


def _filled(buckets: Buckets, owner: str, rate: float, now: float) -> Bucket:
    burst = _burst(rate)
    bucket = buckets.of(owner, burst, now)
    bucket.fill(rate, burst, now)
    return bucket


def _refusal(subject: str, bucket: Bucket, per_second: int, share: float) -> ServiceError:
    wait = (1 - bucket.tokens) / (per_second * share)
    kind, _, name = subject.partition(":")
    text = f"{kind.replace('-', ' ')} {name} may send {per_second} new orders a second: try again in {wait:.3f} s"
    return ServiceError(
        ErrorReason.QUOTA_EXCEEDED,
        text,
        metadata={"limit": LIMIT},
        retry_after_seconds=wait,
        quota_violations=[QuotaViolation(subject, text)],
    )
