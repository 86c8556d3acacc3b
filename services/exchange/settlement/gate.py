"""Whether withdrawals may go out: only while the ledger is whole, and near the engine."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from exchange.settlement import incidents
from exchange.settlement.settler import NotWriter, Settler, State

if TYPE_CHECKING:
    from exchange.runtime.database import Database

MAX_LAG_S: Final = 60.0
# A comparison that was not made or not whole for so many intervals is as good as none.
MISSED_ROUNDS: Final = 10

_FOLLOWING: Final = frozenset({State.RUNNING, State.CATCHING_UP})


class WithdrawalGate:
    """Asked of the writing instance, which alone knows how far behind the ledger is."""

    def __init__(self, settler: Settler, database: Database, reconcile_every_s: float) -> None:
        self._settler = settler
        self._database = database
        self._max_age = timedelta(seconds=MISSED_ROUNDS * reconcile_every_s)

    async def why_closed(self) -> str:
        """What keeps withdrawals in, "" for nothing. Raises NotWriter, and ServiceError where the database is away."""
        settler = self._settler
        if settler.state is State.STOPPED:
            return f"settlement has stopped: {settler.problem}"
        if not settler.is_writer:
            raise NotWriter
        async with self._database.reading() as connection:
            count = await incidents.open_count(connection)
            last = await incidents.reconciled(connection)
            now = await connection.fetchval("SELECT clock_timestamp()")
        if count:
            return f"open incidents: {count}"
        if last is None:
            return "engine and ledger were not compared yet"
        if now - last.reconciled_at > self._max_age:
            return f"engine and ledger were last found to agree at {last.reconciled_at:%Y-%m-%d %H:%M:%S} UTC"
        if settler.state not in _FOLLOWING:
            return f"the engine's events are not followed: {settler.state}"
        if settler.lag_s > MAX_LAG_S:
            return f"the ledger is {settler.lag_s:.0f} s behind the engine"
        return ""
