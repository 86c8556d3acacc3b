"""The one place that starts a process."""

from __future__ import annotations

import asyncio
import pwd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exchange.stack.service import Launch


async def spawn(launch: Launch, output: int) -> asyncio.subprocess.Process:
    """Starts the program; `output` (a descriptor, or asyncio's PIPE) gets what it prints. Raises OSError.

    It gets a session of its own: Ctrl-C in the terminal reaches the supervisor only, which stops all in order.
    """
    return await asyncio.create_subprocess_exec(
        *launch.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        cwd=launch.folder,
        env=dict(launch.environment),
        start_new_session=True,
        user=launch.user,
        group=pwd.getpwnam(launch.user).pw_gid if launch.user else None,
        extra_groups=[] if launch.user else None,
    )
