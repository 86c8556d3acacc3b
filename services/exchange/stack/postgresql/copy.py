"""Makes a server's data those of a standby: rewound to where the histories part, or copied anew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.postgresql.roles import ADMIN, MAINTENANCE, REPLICATION
from exchange.stack.service import Launch
from exchange.stack.spawn import spawn

if TYPE_CHECKING:
    from exchange.stack.postgresql.node import Node

# There as long as the data are not known to be whole: a rewind that was cut off leaves what nothing but a copy repairs.
COPY_NEEDED = "copy-needed"


async def rebuild(node: Node, primary: Node) -> str:
    """Returns how, "rewound" or "copied". Raises StackError; the next attempt then makes a whole copy.

    The primary must serve, and nothing of `node` may run.
    """
    node.write_standby_settings(primary)
    how = "rewound" if await _rewind(node, primary) else await _copy(node, primary)
    # Its settings again: they include a line in the data, which are others now.
    node.write_standby_settings(primary)
    (node.place.folder / COPY_NEEDED).unlink(missing_ok=True)
    return how


def need_copy(node: Node) -> None:
    """Lets the next rebuild make a whole copy."""
    (node.place.folder / COPY_NEEDED).touch()


async def _rewind(node: Node, primary: Node) -> bool:
    """False where there is nothing to rewind, or pg_rewind says that it cannot."""
    if not node.place.has_data or (node.place.folder / COPY_NEEDED).exists():
        return False
    need_copy(node)
    connection = await primary.connect()
    try:
        # pg_rewind reads the new timeline in the control file, where a promotion alone does not write it at once.
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    source = f"host={LOOPBACK} port={primary.port} user={ADMIN} dbname={MAINTENANCE}"
    status = await _run(node, "pg_rewind", f"--target-pgdata={node.place.data}", f"--source-server={source}")
    return status == 0


async def _copy(node: Node, primary: Node) -> str:
    node.place.make_data_folder()
    server = ("-h", LOOPBACK, "-p", str(primary.port), "-U", REPLICATION, "--no-password")
    status = await _run(
        node, "pg_basebackup", "-D", str(node.place.data), *server, "--checkpoint=fast", "--wal-method=stream"
    )
    if status:
        raise StackError(f"pg_basebackup of {primary.name} failed (exit status {status}); log: {node.log}")
    return "copied"


async def _run(node: Node, program: str, *arguments: str) -> int:
    argv = [str(node.place.binaries / program), *arguments]
    launch = Launch(argv, node.tool_environment(), node.place.folder, node.place.user)
    with node.log.open("ab") as output:
        process = await spawn(launch, output.fileno())
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
