"""A wallet with everything around it but processes: real PostgreSQL and the simulated network, engine and ledger in memory.

`World` makes money come in, go round and vanish; `work` is what the worker does; `check` is what must hold at any moment, `check_whole` once
nothing is under way. Parts are made anew by `restart`, as a new process would, and their calls burn `fuse`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from prometheus_client import CollectorRegistry

from exchange.runtime.database import Database
from exchange.wallet.addresses import DepositAddresses
from exchange.wallet.connector import ConnectorAway
from exchange.wallet.crediting import Crediting
from exchange.wallet.deposits import DepositIntake
from exchange.wallet.metrics import WalletMetrics
from exchange.wallet.networks import Networks, parse_terms
from exchange.wallet.reversals import Reversals
from exchange.wallet.simulated.network import SimulatedNetwork
from tests.integration.wallet.crashes import Fuse, Fused, FusedDatabase
from tests.integration.wallet.fakes import FakeAssets, FakeEngine, FakeLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.wallet.worker import Driver
    from tests import postgres_fixture

TERMS = "BTC/simulated:2:0.0001:0.001,ETH/simulated:3:0:0,USD/simulated:1:1:10"
DEPTH = 4
MAX_ROUNDS = 60
_TABLES = (
    "wallet_cursors, wallet_deposit_addresses, wallet_deposits, wallet_unassigned, wallet_freezes, sim_addresses, sim_incoming, "
    "sim_sends, sim_reports, sim_late_reports"
)


class World:
    """One exchange's wallet. Amounts are smallest units."""

    def __init__(self, database: postgres_fixture.Database, *, seed: int = 0) -> None:
        self.owner = psycopg.connect(database.admin_url, autocommit=True)
        self.fuse = Fuse()
        self.engine = FakeEngine()
        self.ledger = FakeLedger(self.engine)
        self.assets = FakeAssets()
        self.database: Database = FusedDatabase(database.wallet_url, self.fuse)
        # What happens on the network itself is not the wallet's process: no fuse.
        self.outside = Database(database.wallet_url, "outside")
        self.chain = SimulatedNetwork(self.outside, seed=seed, depth=DEPTH)
        self.seed = seed
        self.names = 0
        self.restart()

    def restart(self) -> None:
        """A new process: nothing of the old one's memory is left."""
        self.fuse.out()
        connector: Any = Fused(self.chain, self.fuse)
        self.networks = Networks(parse_terms(TERMS), [connector], self.assets)
        self.addresses = DepositAddresses(self.database)
        self.metrics = WalletMetrics(CollectorRegistry())
        self.funds: Any = Fused(self.engine, self.fuse)
        self.losses: Any = Fused(self.ledger, self.fuse)
        self.drivers: list[Driver] = [
            DepositIntake(self.database, connector, self.networks),
            Crediting(self.database, self.funds, self.losses, self.metrics),
            Reversals(self.database, self.funds, self.losses, self.metrics),
        ]

    # --- what happens ---

    async def address(self, account: str, asset: str) -> str:
        """Where it deposits."""
        return await self.addresses.of(account, await self.networks.find(asset))

    async def pay_in(self, account: str, asset: str, units: int) -> str:
        """A transaction appears; its id."""
        address = await self.address(account, asset)
        self.names += 1
        return await self.chain.deposit(address, asset, units, f"tx-{self.names}")

    async def pay_in_again(self, name: str) -> None:
        """One that vanished comes again."""
        ((address, asset, units),) = self.sql(
            "SELECT address, asset, amount FROM sim_incoming WHERE transaction_id = %s", name
        )
        await self.chain.deposit(address, asset, units, name)

    async def work(self) -> None:
        """One round of every driver, all that was postponed included."""
        self.hurry()
        for driver in self.drivers:
            while await driver.drive():
                pass

    def hurry(self) -> None:
        """What waits after a failure need not wait."""
        self.sql("UPDATE wallet_deposits SET next_at = clock_timestamp() WHERE next_at > clock_timestamp()")

    async def settle_down(self, blocks: int = DEPTH + 4) -> None:
        """Blocks and work, until nothing is under way."""
        for number in range(MAX_ROUNDS):
            await self.chain.grow()
            try:
                await self.work()
            except ConnectorAway:
                continue
            if number >= blocks and not self.under_way():
                return
        raise AssertionError(f"still under way: {self.under_way()}")

    # --- what is so ---

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says, or does, asked by the owner of its tables."""
        cursor = self.owner.execute(query, values)
        return cursor.fetchall() if cursor.description is not None else []

    def deposits(self) -> list[tuple[str, str, int]]:
        """(transaction, status, appearance) of all, in order."""
        return [
            (name, status, appearance)
            for name, status, appearance in self.sql(
                "SELECT transaction_id, status, appearance FROM wallet_deposits ORDER BY deposit_id"
            )
        ]

    def under_way(self) -> list[tuple[Any, ...]]:
        """Deposits that are not at their end."""
        return self.sql(
            "SELECT deposit_id, status, reversal, problem FROM wallet_deposits WHERE status IN ('SEEN', 'CONFIRMED')"
            " OR (status = 'CREDITED' AND vanished) OR (status = 'REVERSED' AND reversal <> 'DONE')"
        )

    def custody(self, asset: str) -> int:
        """What the network has."""
        ((found,),) = self.sql(
            "SELECT (SELECT coalesce(sum(amount), 0) FROM sim_incoming WHERE height IS NOT NULL AND asset = %s)"
            " - (SELECT coalesce(sum(amount), 0) FROM sim_sends WHERE refused IS NULL AND asset = %s)",
            asset,
            asset,
        )
        return int(found)

    def money_under_way(self, asset: str) -> int:
        """What the engine will get yet, less what it will lose yet, for things to be even; by deposits alone.

        Each appearance on its own: it is credited whole or not at all, and taken back and lost no more than whole.
        """
        rows = self.sql(
            "SELECT d.deposit_id, d.network, d.amount, d.status, d.vanished, i.transaction_id IS NOT NULL"
            " FROM wallet_deposits d LEFT JOIN sim_incoming i ON (i.transaction_id, i.output, i.appearance)"
            " = (d.transaction_id, d.output, d.appearance) AND i.height IS NOT NULL AND NOT i.vanished WHERE d.asset = %s",
            asset,
        )
        due = 0
        for number, network, amount, status, vanished, present in rows:
            reference = f"{network}:{number}"
            credited = sum(
                units
                for name, (_, _, units) in self.engine.credits.items()
                if name in {f"deposit:{reference}", f"deposit:{reference}.made-good"}
            )
            taken = sum(
                units
                for name, (_, _, units) in self.engine.settled.items()
                if name.startswith(f"reversal:{reference}.")
            )
            lost = self.ledger.losses.get(f"loss:{reference}", ("", "", 0))[2]
            assert credited <= amount, "credited more than came"
            assert taken + lost <= credited, "taken more than was credited"
            assert not (taken or lost) or vanished, "taken though it stands"
            assert status != "ORPHANED" or not credited, "credited and orphaned"
            due += (amount if present else 0) - (credited - taken - lost)
        ((unread,),) = self.sql(
            "SELECT coalesce(sum(i.amount), 0) FROM sim_incoming i JOIN sim_addresses USING (address, asset)"
            " WHERE i.height IS NOT NULL AND i.asset = %s AND NOT EXISTS (SELECT FROM wallet_deposits d WHERE"
            " (d.transaction_id, d.output, d.appearance) = (i.transaction_id, i.output, i.appearance))",
            asset,
        )
        return due + int(unread)

    def money_going_out(self, _asset: str) -> int:
        """What the network has sent and the engine still has: 0 where nothing goes out."""
        return 0

    def check(self) -> None:
        """At any moment: what all accounts have is what the network has, less what is under way, and what was lost."""
        for asset in self.assets.known:
            mine = self.engine.total(asset)
            theirs = self.custody(asset) + self.money_going_out(asset) + self.ledger.lost(asset)
            assert mine + self.money_under_way(asset) == theirs, asset
            assert all(units >= 0 for units in self.engine.free.values())

    def check_whole(self) -> None:
        """Once nothing is under way."""
        self.check()
        assert not self.under_way()
        for asset in self.assets.known:
            assert self.engine.total(asset) == self.custody(asset) + self.ledger.lost(asset), asset
        assert not self.engine.holds

    def clear(self) -> None:
        """Empty tables, for the next history."""
        self.sql(f"TRUNCATE {_TABLES} RESTART IDENTITY CASCADE")
        self.sql("UPDATE sim_chain SET height = 0, reports = 0")


@asynccontextmanager
async def world_of(database: postgres_fixture.Database, *, seed: int = 0) -> AsyncIterator[World]:
    """A world, connected."""
    world = World(database, seed=seed)
    await world.database.open()
    await world.outside.open()
    try:
        yield world
    finally:
        await world.database.close()
        await world.outside.close()
        world.owner.close()
