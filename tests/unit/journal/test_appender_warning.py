"""After a warning an append counts only if its row is found: the session may have come to another server meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest

from exchange.trading.journal import postgres_appender
from exchange.trading.journal.errors import Fenced
from exchange.trading.journal.frame import GENESIS_HASH, Frame
from exchange.trading.journal.postgres_appender import Appender


class FailingOverSession:
    """Its server takes the append, warns, and is then replaced by one that holds `stored` at the frame's place."""

    connected = True

    def __init__(self, stored: bytes | None) -> None:
        self._stored = stored
        self._warned = False

    async def fetch_value(self, sql: str, *_arguments: object) -> Any:
        if sql == postgres_appender.ENSURE_PARTITIONS:
            return 10**7
        if sql == postgres_appender._APPEND:
            self._warned = True
            return True
        if sql == postgres_appender._BARRIER:
            return 1
        assert sql == postgres_appender._STORED_HASH
        return self._stored

    def take_warning(self) -> bool:
        warned, self._warned = self._warned, False
        return warned

    def drop(self) -> None:
        """Nothing is open."""


@pytest.fixture
def frame() -> Frame:
    return Frame.seal(
        shard=0, first_sequence=1, last_sequence=1, epoch=1, time_ns=1, commands=b"c", events=b"e", digest=bytes(32),
        prev_hash=GENESIS_HASH, format_version=1, rules_version=1,
    )  # fmt: skip


async def test_a_row_that_the_next_server_does_not_have_is_not_durable(frame: Frame):
    appender = Appender(cast("Any", FailingOverSession(None)), 0)
    with pytest.raises(Fenced, match="no frame stands at 1"):
        await appender.store(frame)


async def test_a_row_that_the_next_server_has_is_durable(frame: Frame):
    await Appender(cast("Any", FailingOverSession(frame.hash)), 0).store(frame)
