"""Commits that wait for a standby, and commits that do not: settings that hold for every commit from then on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from tests.integration.journal.waiting import until
from tests.postgres_fixture import PostgresServer

NOBODY = "a_standby_that_is_not_there"


@contextlib.asynccontextmanager
async def observing(server: PostgresServer, database: str = "postgres") -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The superuser's connection, whose own commits wait for nobody."""
    observer = await asyncpg.connect(server.url(database, "postgres"))
    try:
        await observer.execute("SET synchronous_commit = local")
        yield observer
    finally:
        await observer.close()


async def wait_for(server: PostgresServer, standby: str) -> None:
    """Commits of everybody wait for this standby from now on, or for none."""
    async with observing(server) as observer:
        await observer.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
        await observer.execute("SELECT pg_reload_conf()")
        # A backend shows the setting before the checkpointer, by whom commits begin to wait, has read it: try commits.
        await until(lambda: _as_set(server, observer, waits=bool(standby)))


async def _as_set(server: PostgresServer, observer: "asyncpg.Connection[Any]", *, waits: bool) -> bool:
    probe = await asyncpg.connect(server.url("postgres", "postgres"), server_settings={"application_name": "probe"})
    committing = asyncio.create_task(probe.execute("SELECT pg_logical_emit_message(true, 'probe', '')"))
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'probe' AND wait_event = 'SyncRep'"
    waited = False
    try:
        while not committing.done():
            waited = waited or bool(await observer.fetchval(end))
            await asyncio.sleep(0.002)
    finally:
        await asyncio.gather(committing, return_exceptions=True)
        await probe.close()
    return waited == waits
