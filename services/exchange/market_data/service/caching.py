"""How long answers of REST may be kept by whoever carries them: said by the service, which alone knows what may still change.

The edge's transcoder turns initial metadata into headers of the answer; a refusal has none, and is kept by nobody.
"""

from __future__ import annotations

from typing import Any, Final

CACHE_CONTROL: Final = "cache-control"
# What is of now: a burst of readers costs one call a second.
NOW: Final = "public, max-age=1"
# What lies in the past and is never corrected; only a restore of the exchange to an earlier time could.
PAST: Final = "public, max-age=3600, immutable"
# What must be of this moment, such as a read that names a sequence to wait for.
NEVER: Final = "no-store"


async def may_be_kept(context: Any, how: str) -> None:
    """Say so before the answer: one of NOW, PAST, NEVER."""
    await context.send_initial_metadata(((CACHE_CONTROL, how),))
