"""Reports of the books that take long or are long: how patient the SDK is, and that half a file is no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import pytest
from google.api import httpbody_pb2

from pincex.settlement.v1 import settlement_service_pb2 as wire
from pincex_client import Unavailable
from pincex_client.settlement import SettlementAdmin, Statements
from pincex_client.transport import Caller, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WHOLE = [b"time,cause\r\nt,opening\r\n", b"t,deposit\r\n", b"t,closing,,,1.00,7\r\n"]


class Anybody:
    """Headers of nobody."""

    async def metadata(self) -> tuple[()]:
        return ()

    def outdated(self, _error: object, _used: object) -> bool:
        return False


CHANNEL = cast("Any", Mock())
PATIENT = Caller(cast("Any", Anybody()), RetryPolicy(deadline=5.0, attempt_timeout=2.0))


class Stream:
    """An answer in parts."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[httpbody_pb2.HttpBody]:
        for part in self._parts:
            yield httpbody_pb2.HttpBody(data=part)


def reports(parts: list[bytes]) -> tuple[Statements, Stream]:
    """Statements of an exchange that sends these parts."""
    found, stream = Statements(CHANNEL, PATIENT), Stream(parts)
    found._statements.ExportStatement = cast("Any", lambda *_, **__: stream)
    return found, stream


async def test_a_file_comes_whole_or_not_at_all() -> None:
    found, _ = reports(WHOLE)
    assert await found.csv("USD") == b"".join(WHOLE)
    for parts in (WHOLE[:2], WHOLE[:1], []):
        found, stream = reports(parts)
        with pytest.raises(Unavailable, match="closing line"):
            await found.csv("USD")
        assert stream.cancelled


async def test_a_comparison_is_not_begun_again_because_it_takes_long() -> None:
    asked = []

    async def compare(_request: Any, **how: Any) -> wire.Reconciliation:
        asked.append(how["timeout"])
        return wire.Reconciliation(whole=True)

    found = SettlementAdmin(CHANNEL, PATIENT)
    found._settlement.Reconcile = cast("Any", compare)
    assert (await found.reconcile()).whole
    assert asked == [60.0]
