"""The leader cancels the open orders of what was revoked, where the revocation says so.

Every leader goes through the revocations of the last hour, whoever led before: commands carry ids made of the revocation's
sequence, and an id that was used gets its first answer and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from typing import Final

import structlog

from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.revocations import API_KEY, STALE_AFTER_S, Revocations
from exchange.runtime.identity.store import Revocation
from exchange.trading.core import commands as cmd
from exchange.trading.core import keys
from exchange.trading.core.commands import Command
from exchange.trading.core.events import R_COUNT
from exchange.trading.service.desk import Desk

OPERATOR: Final = "$engine"
RETRY_S: Final = 0.2
# Orders are cancelled once more when every instance refuses the credential for sure: one that learned of the revocation
# later than this one may have taken orders meanwhile. By key that waits for instances that are cut off from the database
# and refuse all tokens by then; of whole accounts no longer than most need, for their owners may trade again.
AGAIN_BY_KEY_S: Final = STALE_AFTER_S + 1.0
AGAIN_BY_ACCOUNT_S: Final = 2.0

_NOT_NOW: Final = frozenset({ErrorReason.OVERLOADED, ErrorReason.JOURNAL_UNAVAILABLE, ErrorReason.NOT_READY})


class RevokedOrders:
    """Cancels them while this instance leads."""

    def __init__(self, revocations: Revocations, desk: Desk, clock: Clock) -> None:
        self._revocations = revocations
        self._desk = desk
        self._clock = clock
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("revoked-orders")

    async def run(self) -> None:
        """Until cancelled: when this instance leads no more. What fails for now is tried again."""
        seen = 0
        # When it is due on the monotonic clock; the sequence keeps the order and is never equal for the same moment twice.
        due: list[tuple[float, int, str, Revocation]] = []
        while True:
            news = asyncio.ensure_future(self._revocations.news())
            try:
                for made_at, revocation in self._revocations.since(seen):
                    seen = revocation.sequence
                    if revocation.cancel_orders:
                        heapq.heappush(due, (made_at, revocation.sequence, "", revocation))
                        again_at = made_at + self._again_after(revocation)
                        heapq.heappush(due, (again_at, revocation.sequence, ".again", revocation))
                wait = await self._do(due)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(news), wait)
            finally:
                news.cancel()

    async def _do(self, due: list[tuple[float, int, str, Revocation]]) -> float | None:
        """Do what is due; return in how many seconds there is more, None for: with the next revocation."""
        while due:
            wait = due[0][0] - self._clock.monotonic()
            if wait > 0:
                return wait
            _, _, suffix, revocation = due[0]
            try:
                await self._cancel(revocation, suffix)
            except ServiceError as error:
                if error.reason in _NOT_NOW:
                    return RETRY_S
                self._log.exception("orders of what was revoked could not be cancelled", sequence=revocation.sequence)
            heapq.heappop(due)
        return None

    async def _cancel(self, revocation: Revocation, suffix: str) -> None:
        for number, account in enumerate(revocation.accounts):
            # No account at all would be every account.
            if not account:
                continue
            request_id = f"revocation-{revocation.sequence}" + (f"-{number}" if number else "") + suffix
            result = await self._desk.execute(self._command(revocation, account, request_id))
            self._log.info(
                "orders of what was revoked are cancelled",
                request_id=request_id,
                account=account,
                kind=revocation.kind,
                whole_account=not self._by_key(revocation),
                cancelled=result[R_COUNT],
            )

    def _command(self, revocation: Revocation, account: str, request_id: str) -> Command:
        key = revocation.subject if self._by_key(revocation) else ""
        return cmd.mass_cancel(OPERATOR, account, key=key, request_id=request_id)

    def _by_key(self, revocation: Revocation) -> bool:
        """Whether it is of one key's orders alone; under rules that know no keys it is of the whole account."""
        return revocation.kind == API_KEY and keys.are_known(self._desk.state)

    def _again_after(self, revocation: Revocation) -> float:
        return AGAIN_BY_KEY_S if self._by_key(revocation) else AGAIN_BY_ACCOUNT_S
