"""What the controller does to the pair. The order of the steps is what keeps acknowledged commits.

Each action may be cut off after any step, by a crash of the supervisor as well: what the state file then says is still
true, and the next look finds what is left to do.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError
from exchange.stack.postgresql.copy import need_copy
from exchange.stack.postgresql.probe import UNREACHABLE
from exchange.stack.postgresql.state import Standby

if TYPE_CHECKING:
    from exchange.stack.postgresql.cluster import Cluster
    from exchange.stack.postgresql.node import Node

PROMOTE_TIMEOUT_S = 10
RELOAD_TIMEOUT_S = 2.0
CHECKPOINT_TIMEOUT_S = 60.0
# Commits may wait for the new standby so long until it is known to be in sync.
ARM_TIMEOUT_S = 3.0

_POLL_S = 0.02
_CAUGHT_UP = """
SELECT EXISTS (SELECT FROM pg_stat_replication
               WHERE application_name = $1 AND sync_state = 'sync' AND flush_lsn >= $2::text::pg_lsn)
"""


async def fail_over(cluster: Cluster) -> None:
    """Makes the standby the primary. It must be in sync. Raises StackError; PROMOTE is what is left to do then."""
    began = time.monotonic()
    old, new = cluster.primary, cluster.standby
    # First the fence: from here on nobody can be told of a commit that the standby does not have.
    await old.end_all()
    await cluster.become(cluster.state.failed_over())
    # Whatever was being started while the state was written.
    await old.end_all()
    await _promote(new)
    cluster.fail_overs += 1
    seconds = time.monotonic() - began
    cluster.say(f"{old.name} is gone: {new.name} was promoted in {seconds:.2f} s, epoch {cluster.state.epoch}")


async def finish_promotion(cluster: Cluster) -> None:
    """Promotes the primary that still recovers: a fail-over was cut off after its state was written."""
    await cluster.standby.end_all()
    await _promote(cluster.primary)
    cluster.say(f"{cluster.primary.name} was promoted, epoch {cluster.state.epoch}")


async def restart_primary(cluster: Cluster) -> None:
    """Ends a primary that hangs; its instance starts it again. There is no standby that could take its place."""
    cluster.say(f"{cluster.primary.name} hangs and no standby is in sync: it is killed and started again")
    await cluster.primary.end_all()


async def degrade(cluster: Cluster) -> None:
    """Lets the primary commit alone. The standby is restarted, follows, and is taken in again when it has caught up."""
    primary, standby = cluster.primary, cluster.standby
    # First the state: from the reload on commits are acknowledged that the standby does not have.
    await cluster.become(cluster.state.with_standby(Standby.FOLLOWING))
    await _wait_for(primary, None)
    await standby.end_all()
    cluster.say(f"DEGRADED: {standby.name} does not keep up; {primary.name} commits alone until it does again")


async def arm(cluster: Cluster) -> bool:
    """Makes commits wait for the standby, then trusts it. False if it did not catch up in time: all is as before then."""
    primary, standby = cluster.primary, cluster.standby
    # While no commit waits: it leaves little to do for the checkpoint that follows, while they do.
    await _checkpoint(primary)
    try:
        async with asyncio.timeout(ARM_TIMEOUT_S):
            await _wait_for(primary, standby)
            await _until_caught_up(primary, standby)
    except UNREACHABLE:
        await _wait_for(primary, None)
        return False
    await cluster.become(cluster.state.with_standby(Standby.IN_SYNC))
    cluster.say(f"{standby.name} is a synchronous standby of {primary.name}, in sync")
    return True


async def copy_again(cluster: Cluster) -> None:
    """Gives up data that cannot follow any more, such as those too far behind; they are copied anew."""
    standby = cluster.standby
    need_copy(standby)
    await cluster.become(cluster.state.with_standby(Standby.ABSENT))
    await standby.end_all()
    cluster.say(f"DEGRADED: {standby.name} cannot follow any more: it gets a new copy of {cluster.primary.name}")


async def _promote(node: Node) -> None:
    try:
        async with asyncio.timeout(2 * PROMOTE_TIMEOUT_S):
            connection = await node.connect()
            try:
                promoted = await connection.fetchval("SELECT pg_promote(true, $1)", PROMOTE_TIMEOUT_S)
            finally:
                connection.terminate()
    except UNREACHABLE as error:
        raise StackError(f"{node.name} could not be promoted: {error!r}") from error
    if not promoted:
        raise StackError(f"{node.name} was told to promote, but recovers still after {PROMOTE_TIMEOUT_S} s")


async def _wait_for(primary: Node, standby: Node | None) -> None:
    """Sets whom commits wait for. Returns when the postmaster has read it; its processes follow.

    A primary that cannot be reached reads it when it starts.
    """
    primary.write_primary_settings(standby)
    wanted = f'"{standby.name}"' if standby is not None else ""
    try:
        async with asyncio.timeout(RELOAD_TIMEOUT_S):
            await _reload(primary)
            # A session begins with what the postmaster knows, which tells its other processes before it makes one.
            while await _setting_of_new_session(primary) != wanted:  # noqa: ASYNC110  # a server has no event
                await asyncio.sleep(_POLL_S)
    except UNREACHABLE:
        if standby is not None:
            raise


async def _reload(primary: Node) -> None:
    connection = await primary.connect()
    try:
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        connection.terminate()


async def _setting_of_new_session(primary: Node) -> str:
    connection = await primary.connect()
    try:
        value: str = await connection.fetchval("SHOW synchronous_standby_names")
    finally:
        connection.terminate()
    return value


async def _checkpoint(node: Node) -> None:
    async with asyncio.timeout(CHECKPOINT_TIMEOUT_S):
        connection = await node.connect()
        try:
            await connection.execute("CHECKPOINT")
        finally:
            connection.terminate()


async def _until_caught_up(primary: Node, standby: Node) -> None:
    """Returns when every commit that did not wait for the standby is on its disk.

    Whether commits wait is a flag that the checkpointer sets when it sees the new setting, so a commit may still pass
    after the reload. The checkpointer looks at its settings before it makes a checkpoint: after one that we asked for,
    no commit passes any more, and what had passed lies before the position that the log has then.
    """
    connection = await primary.connect()
    try:
        await connection.execute("CHECKPOINT")
        position = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        while not await connection.fetchval(_CAUGHT_UP, standby.name, position):  # noqa: ASYNC110  # nor here
            await asyncio.sleep(_POLL_S)
    finally:
        connection.terminate()
