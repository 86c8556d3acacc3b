"""The clock's time as PostgreSQL's columns take it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from exchange.runtime.clock import Clock

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def utc(clock: Clock) -> datetime:
    """Now, to the microsecond."""
    return _EPOCH + timedelta(microseconds=clock.time_ns() // 1_000)


def unix_seconds(instant: datetime) -> int:
    """Whole seconds since 1970."""
    return (instant - _EPOCH) // timedelta(seconds=1)
