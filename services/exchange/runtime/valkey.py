"""A client of Valkey as every service uses it: each command is tried once, and whoever waits for it bounds that by `asyncio.timeout`.

The client's own `socket_timeout` is not used: with it redis-py writes under `asyncio.wait_for`, which in Python 3.11 loses a
cancellation that comes in the moment in which the write is done. The task that was to end goes on for ever then.
"""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from exchange.runtime.config import Secret


def valkey_client(url: Secret, *, connect_s: float, **options: Any) -> Any:
    """A client that does not connect before its first command. `connect_s` bounds the opening of a connection, in seconds."""
    return redis.Redis.from_url(
        url.reveal(), socket_timeout=None, socket_connect_timeout=connect_s, retry=Retry(NoBackoff(), 0), **options
    )
