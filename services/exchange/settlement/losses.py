"""Losses of custody: an asset that is gone is exchanged for a claim in suspense, and no user pays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import fingerprint
from exchange.settlement import store
from exchange.settlement.ledger import chart

if TYPE_CHECKING:
    from exchange.settlement.settler import Session, Settler


@dataclass(frozen=True, slots=True)
class Loss:
    """`amount` is in smallest units, more than zero."""

    custody_account: str
    asset: str
    amount: int
    request_id: str
    reason: str

    @property
    def fingerprint(self) -> bytes:
        """What a repeat must have in common with the first; a reason may be worded anew."""
        return fingerprint(self.custody_account, self.asset, str(self.amount))


async def record(settler: Settler, loss: Loss, time_ns: int) -> int:
    """Post it, once for its request id; the number of its first line.

    Raises ServiceError DUPLICATE_ID for another loss of this id, INSUFFICIENT_FUNDS where custody is less than that, and
    NotWriter where another instance writes.
    """
    async with settler.session() as session:
        known = await session.connection.fetchrow(
            "SELECT request_hash, posting_id FROM ledger_losses WHERE request_id = $1", loss.request_id
        )
        if known is not None:
            if known["request_hash"] != loss.fingerprint:
                reject(ErrorReason.DUPLICATE_ID, request_id=loss.request_id)
            return int(known["posting_id"])
        books = session.books
        place = (books.accounts.get(loss.custody_account, 0), loss.asset, chart.CUSTODY)
        if books.balances.get(place, 0) < loss.amount:
            raise ServiceError(ErrorReason.INSUFFICIENT_FUNDS, metadata={"asset": loss.asset})
        try:
            return await _post(settler, session, loss, time_ns)
        except BaseException:
            # The books have it and the tables may not: all is read anew.
            session.connection.terminate()
            raise


async def _post(settler: Settler, session: Session, loss: Loss, time_ns: int) -> int:
    connection, books, old = session.connection, session.books, settler.offset
    posting_id = books.posting_id + 1
    async with connection.transaction():
        loss_id = await connection.fetchval(
            "INSERT INTO ledger_losses (request_id, request_hash, posting_id, reason) VALUES ($1, $2, $3, $4)"
            " RETURNING loss_id",
            loss.request_id,
            loss.fingerprint,
            posting_id,
            loss.reason,
        )
        books.loss(loss_id, time_ns, loss.custody_account, loss.asset, loss.amount, loss.request_id)
        new = replace(old, posting_id=books.posting_id)
        await store.write(connection, store.Rows(books), old, new)
    settler.offset = new
    return posting_id
