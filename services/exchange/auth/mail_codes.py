"""Codes that prove an address: sent by mail, good for a quarter of an hour, five tries and one success.

A stranger can ask for a mail to any address, so each purpose has its own row and its own pace: nobody gets more than one a
minute and ten a day of a kind, and asking for one kind does not hold up another.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import timedelta
from typing import Final

from exchange.auth.contract import RESET_PASSWORD, VERIFY_EMAIL, Mail, MailSender
from exchange.auth.encryption import Keyring
from exchange.auth.store import Connection, Store
from exchange.auth.users import User

CODE_DIGITS: Final = 8
CODE_MINUTES: Final = 15
MAX_TRIES: Final = 5
MAIL_INTERVAL: Final = timedelta(minutes=1)
MAILS_A_DAY: Final = 10

_ALREADY_REGISTERED: Final = "already-registered"
_VALIDITY: Final = timedelta(minutes=CODE_MINUTES)
_DAY: Final = timedelta(days=1)
# No row has it: users are numbered from 100001.
_NOBODY: Final = 0

# Lines of less than 78 characters: longer ones are folded on the way, and hard to read as they are.
_TEXTS: Final = {
    VERIFY_EMAIL: (
        "Your PinCEX code",
        (
            "{code} is your code. It proves that this address is yours.\n"
            "It is good for {minutes} minutes.\n\n"
            "If you did not register with PinCEX, ignore this mail.\n"
        ),
    ),
    RESET_PASSWORD: (
        "Reset your PinCEX password",
        (
            "{code} is your code. It sets a new password.\n"
            "It is good for {minutes} minutes.\n\n"
            "If you did not ask for it, ignore this mail: your password stays as it is.\n"
            "Nobody of PinCEX will ever ask you for this code.\n"
        ),
    ),
    _ALREADY_REGISTERED: (
        "You have a PinCEX account already",
        (
            "Somebody registered with PinCEX and gave this address, which has an\n"
            "account.\n\n"
            "If it was you: log in, or ask for a new password.\n"
            "If it was not, there is nothing to do.\n"
        ),
    ),
}


class StoredMailCodes:
    """The MailCodes of the contract."""

    def __init__(self, store: Store, keyring: Keyring, sender: MailSender) -> None:
        self._store = store
        self._sender = sender
        self._hash = keyring.keyed_hash("mail-code")

    async def send(self, user: User, purpose: str) -> None:
        """See the contract."""
        await self._send(user, purpose)

    async def tell_owner(self, user: User) -> None:
        """See the contract."""
        await self._send(user, _ALREADY_REGISTERED)

    async def take(self, connection: Connection, user: User | None, purpose: str, code: str) -> bool:
        """See the contract."""
        user_id = _NOBODY if user is None else user.user_id
        given = self._digest(user_id, purpose, code)
        # Counted before it is compared, and its row held: tries at the same time are tries one by one.
        stored = await connection.fetchval(
            "UPDATE mail_codes SET attempts = attempts + 1 "
            "WHERE user_id = $1 AND purpose = $2 AND attempts < $3 AND expires_at > clock_timestamp() "
            "RETURNING code_hash",
            user_id,
            purpose,
            MAX_TRIES,
        )
        if not hmac.compare_digest(stored if stored is not None else bytes(len(given)), given):
            return False
        # Void, but its row stays: it says when the last mail went out.
        await connection.execute(
            "UPDATE mail_codes SET expires_at = clock_timestamp() WHERE user_id = $1 AND purpose = $2",
            user_id,
            purpose,
        )
        return True

    async def _send(self, user: User, purpose: str) -> None:
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"
        async with self._store.connection() as connection:
            due = await self._replace(connection, user, purpose, self._digest(user.user_id, purpose, code))
        if due:
            subject, text = _TEXTS[purpose]
            await self._sender.send(Mail(user.email, subject, text.format(code=code, minutes=CODE_MINUTES)))

    async def _replace(self, connection: Connection, user: User, purpose: str, digest: bytes) -> bool:
        """Put this code in place of the one before; False where a mail went out just now, or too many today."""
        row = await connection.fetchval(
            "INSERT INTO mail_codes AS c (user_id, purpose, code_hash, expires_at) "
            "VALUES ($1, $2, $3, clock_timestamp() + $4::interval) "
            "ON CONFLICT (user_id, purpose) DO UPDATE SET code_hash = $3, attempts = 0, "
            "created_at = clock_timestamp(), expires_at = clock_timestamp() + $4::interval, "
            "day_start = CASE WHEN c.day_start <= clock_timestamp() - $6::interval THEN clock_timestamp() "
            "ELSE c.day_start END, "
            "day_count = CASE WHEN c.day_start <= clock_timestamp() - $6::interval THEN 1 ELSE c.day_count + 1 END "
            "WHERE c.created_at <= clock_timestamp() - $5::interval "
            "AND (c.day_count < $7 OR c.day_start <= clock_timestamp() - $6::interval) RETURNING 1",
            user.user_id,
            purpose,
            digest,
            _VALIDITY,
            MAIL_INTERVAL,
            _DAY,
            MAILS_A_DAY,
        )
        return row is not None

    def _digest(self, user_id: int, purpose: str, code: str) -> bytes:
        # The user and the purpose too: a code of one is nothing to another.
        return self._hash.digest(str(user_id), purpose, code.strip()[: 2 * CODE_DIGITS])
