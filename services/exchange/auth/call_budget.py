"""How often one address may call what anybody may call and what costs something: registering, asking for mails.

Each instance counts for itself, in memory: it protects argon2's cores and other people's mailboxes from a flood, and
guesses nothing away. Guesses are the Throttle's affair, which all instances share.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

# Addresses that are counted at a time; beyond, the one that called longest ago is forgotten.
MAX_ADDRESSES: Final = 10_000
# A household or a data centre has a /64 of IPv6, not an address.
_IPV6_NETWORK: Final = 64


class CallBudget:
    """A token bucket for each address: `burst` calls at once, refilled by `per_minute`."""

    def __init__(self, clock: Clock, *, burst: int = 20, per_minute: float = 20.0) -> None:
        self._clock = clock
        self._burst = float(burst)
        self._per_second = per_minute / 60.0
        # Of each address what is left, and when that was.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, address: str) -> None:
        """Count one call. Raises ServiceError TOO_MANY_ATTEMPTS with the time to wait."""
        now = self._clock.monotonic()
        key = _network(address)
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        refused = left < 1.0
        self._left[key] = (left if refused else left - 1.0, now)
        if len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        if refused:
            wait_s = (1.0 - left) / self._per_second
            raise ServiceError(ErrorReason.TOO_MANY_ATTEMPTS, retry_after_seconds=wait_s)


def _network(text: str) -> str:
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_NETWORK), strict=False))
    return str(address)
