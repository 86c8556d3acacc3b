"""Making tokens void: rows that every server follows, in the transaction of what causes them.

`auth_revoke` holds a lock until the commit, so that numbers appear in their order. It is therefore the last thing that a
transaction does: whoever waited for a row after it could wait for somebody who waits for that lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from exchange.auth.store import Connection

USER: Final = "user"
SESSION: Final = "session"
API_KEY: Final = "api_key"
SIGNING_KEY: Final = "signing_key"


async def revoke(
    connection: Connection,
    kind: str,
    subject: str,
    *,
    user_id: int | None = None,
    generation: int = 0,
    accounts: Sequence[str] = (),
    cancel_orders: bool = False,
    reason: str = "",
) -> int:
    """Void a user's tokens below `generation`, or those of a session or key for good; return the row's sequence.

    `user_id` is None where it is of no user: a key that signs tokens.

    With `cancel_orders` the engine cancels the open orders of `accounts`; for a key only those that it placed.
    """
    sequence: int = await connection.fetchval(
        "SELECT auth_revoke($1, $2, $3, $4, $5, $6, $7)",
        kind,
        subject,
        generation,
        "" if user_id is None else str(user_id),
        list(accounts),
        cancel_orders,
        reason,
    )
    return sequence


async def is_revoked(connection: Connection, kind: str, subject: str) -> bool:
    """Whether it is void for good already."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM auth_revocations WHERE kind = $1 AND subject = $2)", kind, subject
    )
    return found


async def void_tokens(
    connection: Connection,
    user_id: int,
    reason: str,
    *,
    accounts: Sequence[str] = (),
    cancel_orders: bool = False,
) -> int:
    """Raise the user's generation, which voids every token made before; return the new one. Sessions and keys stay."""
    generation: int = await connection.fetchval(
        "UPDATE users SET generation = generation + 1 WHERE user_id = $1 RETURNING generation", user_id
    )
    await revoke(
        connection,
        USER,
        str(user_id),
        user_id=user_id,
        generation=generation,
        accounts=accounts,
        cancel_orders=cancel_orders,
        reason=reason,
    )
    return generation
