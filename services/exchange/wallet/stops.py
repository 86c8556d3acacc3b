"""Whether anything may go out at all: the operator's stop, which survives restarts, and settlement's gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exchange.runtime.database import Connection, Database
    from exchange.wallet.gate import WithdrawalGate

_SET: Final = """
UPDATE withdrawal_stop SET stopped = $1, reason = $2, changed_by = $3, changed_at = clock_timestamp() WHERE stopped <> $1 OR $1
"""


class Stops:
    """The operator's stop in the database, and the gate."""

    def __init__(self, database: Database, gate: WithdrawalGate) -> None:
        self._database = database
        self._gate = gate

    async def why(self) -> str:
        """What keeps withdrawals in, "" for nothing. Raises ServiceError NOT_READY without the database."""
        async with self._database.connection() as connection:
            by_operator = await why_stopped(connection)
        return by_operator or await self._gate.why_closed()

    async def stop(self, reason: str, who: str) -> None:
        """Nothing goes out any more; the newest words count."""
        await self._set(reason, who, stopped=True)

    async def resume(self, reason: str, who: str) -> None:
        """Lift the operator's stop. Where there was none, nothing changes."""
        await self._set(reason, who, stopped=False)

    async def _set(self, reason: str, who: str, *, stopped: bool) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_SET, stopped, reason, who)


async def why_stopped(connection: Connection) -> str:
    """The operator's words, "" while withdrawals go out."""
    row = await connection.fetchrow("SELECT stopped, reason, changed_by FROM withdrawal_stop")
    assert row is not None, "the migration makes it, and nobody may remove it"
    return f"stopped by {row['changed_by']}: {row['reason']}" if row["stopped"] else ""
