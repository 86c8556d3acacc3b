"""What one connection may do, and what this process holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound; the unit comes last. `docs/WEBSOCKET.md` explains each.

    `queue_messages` and `queue_bytes` are what waits for a client that does not read, beyond the socket's own buffer of
    `write_buffer_bytes`. `refused_messages`: so many in a row beyond the rate, and the connection is closed.
    """

    connections: int = 10_000
    # Of them from one address: one client's mistake, or malice, must not use up all of them.
    connections_of_address: int = 1_000
    subscriptions: int = 200
    messages_per_second: float = 100.0
    messages_burst: float = 300.0
    refused_messages: int = 1_000
    message_bytes: int = 64 * 1024
    queue_messages: int = 2_000
    queue_bytes: int = 8 * 1024 * 1024
    write_buffer_bytes: int = 64 * 1024
    waiting_orders: int = 100
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    close_timeout_s: float = 5.0
    open_timeout_s: float = 10.0
    # Who does not read cannot be pinged: it is dropped once nothing was heard of it for so long.
    silence_s: float = 60.0
    idle_s: float = 600.0
    feeds: int = 2_000
    # Messages of a public channel that are kept for who comes back with a resume token.
    kept_messages: int = 1_024
    # A public channel that nobody follows is kept up for so long.
    linger_s: float = 10.0
    # How long a subscriber waits for the first message of a channel.
    start_s: float = 3.0


class Allowance:
    """A token bucket: `burst` at once, refilled by `per_second`. Times are in seconds, of one clock."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._since = now

    def spend(self, now: float) -> float:
        """Take one. Returns 0, or after how many seconds the next one is allowed."""
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._per_second
        self._left -= 1.0
        return 0.0
