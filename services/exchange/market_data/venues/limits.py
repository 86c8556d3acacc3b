"""The bounds of a feed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and bytes of a message. Venues allow 300 connections in 5 minutes (Binance), 8 a second (Coinbase)."""

    open_s: float = 10.0
    close_s: float = 2.0
    # Silence after which prices are no longer believed, and after which the connection is given up.
    stale_s: float = 5.0
    silent_s: float = 15.0
    # Until all books are whole; a snapshot of Coinbase's busiest market has some MB.
    whole_s: float = 30.0
    max_message_bytes: int = 16 * 1024 * 1024
    # A book that stays crossed for so long is not the venue's.
    crossed_s: float = 5.0
    # A price that does not change is said again.
    repeat_s: float = 1.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    # Live for so long, a connection has been a good one: the next pause is the first again.
    steady_s: float = 30.0
    fetch_s: float = 5.0
    fetch_pause_s: float = 1.0
    max_fetches: int = 8


def is_local(url: str) -> bool:
    """Whether it names this machine."""
    return urlsplit(url).hostname in _LOOPBACK
