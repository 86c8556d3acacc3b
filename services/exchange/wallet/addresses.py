"""Addresses that accounts deposit to: one for each account, asset and network, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exchange.runtime.database import Database
    from exchange.wallet.networks import Network

_FIND: Final = "SELECT address FROM wallet_deposit_addresses WHERE network = $1 AND account = $2 AND asset = $3"
_KEEP: Final = """
INSERT INTO wallet_deposit_addresses (network, account, asset, address) VALUES ($1, $2, $3, $4)
ON CONFLICT (network, account, asset) DO NOTHING
"""


class DepositAddresses:
    """In the database; the first one that was kept for an account is its own for ever."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, account: str, network: Network) -> str:
        """The account's address. Raises ServiceError where the database is away, ConnectorAway where the network is."""
        key = (network.network, account, network.asset)
        async with self._database.connection() as connection:
            found: str | None = await connection.fetchval(_FIND, *key)
        if found is not None:
            return found
        made = await network.connector.new_address(account, network.asset)
        async with self._database.connection() as connection:
            # Two calls at once: the first to be kept is the answer to both.
            await connection.execute(_KEEP, *key, made)
            kept: str = await connection.fetchval(_FIND, *key)
        return kept
