"""Client certificates that may call on the mTLS listener: by the URI in their subject alternative names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.auth import revocations, users
from exchange.auth.standing import Standing
from exchange.auth.store import Row, Store
from exchange.auth.tokens import USER_SCOPES
from exchange.runtime.errors import ErrorReason, ServiceError, reject

# Like a key, a certificate manages nothing.
CERTIFICATE_SCOPES: Final = tuple(scope for scope in USER_SCOPES if scope != "manage")

_SUBJECT_FORM: Final = re.compile(r"spiffe://pincex/client/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_COLUMNS: Final = "subject_uri, user_id, account, scopes, created_at"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A row of `certificates`: who may act on which account. `created_at` is in UTC."""

    subject_uri: str
    user_id: int
    account: str
    scopes: tuple[str, ...]
    created_at: datetime

    @classmethod
    def of(cls, row: Row) -> Certificate:
        """From a row of the table."""
        return cls(
            subject_uri=row["subject_uri"],
            user_id=row["user_id"],
            account=row["account"],
            scopes=tuple(row["scopes"]),
            created_at=row["created_at"],
        )


class Certificates:
    """All that are allowed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def allow(self, subject_uri: str, account: str, scopes: tuple[str, ...], *, by: Standing) -> Certificate:
        """Allow a certificate, or find it allowed in the same way already.

        Raises ServiceError: INVALID_FIELD and FIELD_REQUIRED; USER_NOT_FOUND or SUB_ACCOUNT_NOT_FOUND for an account that is
        nobody's; PERMISSION_DENIED for one of a user who stands higher than `by`; ALREADY_EXISTS where it is allowed in another way: remove it first, which ends what runs in its name.
        """
        if not is_subject(subject_uri):
            reject(ErrorReason.INVALID_FIELD, field="subject_uri", value=subject_uri)
        if not scopes:
            reject(ErrorReason.FIELD_REQUIRED, field="scopes")
        for scope in scopes:
            if scope not in CERTIFICATE_SCOPES:
                reject(ErrorReason.INVALID_FIELD, field="scopes", value=scope)
        async with self._store.transaction() as connection:
            user_id = await connection.fetchval("SELECT user_id FROM sub_accounts WHERE account = $1", account)
            if user_id is None:
                if "." in account:
                    raise ServiceError(ErrorReason.SUB_ACCOUNT_NOT_FOUND)
                user_id = users.user_number(account)
            by.check(await users.by_id(connection, user_id))
            await connection.execute(
                "INSERT INTO certificates (subject_uri, user_id, account, scopes) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT DO NOTHING",
                subject_uri,
                user_id,
                account,
                list(scopes),
            )
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} FROM certificates WHERE subject_uri = $1 FOR UPDATE",  # noqa: S608 - a constant
                subject_uri,
            )
            if row is None:
                # Removed by somebody else in between.
                raise ServiceError(ErrorReason.CERTIFICATE_NOT_FOUND)
        certificate = Certificate.of(row)
        if certificate.account != account or set(certificate.scopes) != set(scopes):
            raise ServiceError(
                ErrorReason.ALREADY_EXISTS, "this certificate is allowed in another way: remove it first"
            )
        return certificate

    async def page(self, size: int, after: str) -> list[Certificate]:
        """At most `size` of them by name, those behind `after`."""
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS} FROM certificates WHERE subject_uri > $1 ORDER BY subject_uri LIMIT $2",  # noqa: S608 - a constant
                after,
                size,
            )
        return [Certificate.of(row) for row in rows]

    async def remove(self, subject_uri: str, reason: str, *, by: Standing) -> None:
        """Refuse it again. Raises ServiceError CERTIFICATE_NOT_FOUND; PERMISSION_DENIED where its user stands higher than `by`.

        A certificate has no generation of its own, and its name may be allowed again: so all tokens of its user become void.
        Log-ins and keys get new ones by themselves.
        """
        async with self._store.transaction() as connection:
            user_id = await connection.fetchval("SELECT user_id FROM certificates WHERE subject_uri = $1", subject_uri)
            if user_id is None:
                raise ServiceError(ErrorReason.CERTIFICATE_NOT_FOUND)
            by.check(await users.by_id(connection, user_id, lock=True))
            tag = await connection.execute("DELETE FROM certificates WHERE subject_uri = $1", subject_uri)
            if tag == "DELETE 0":
                raise ServiceError(ErrorReason.CERTIFICATE_NOT_FOUND)
            await revocations.void_tokens(connection, user_id, reason)


def is_subject(text: str) -> bool:
    """Whether it has the form of a client's name."""
    return _SUBJECT_FORM.fullmatch(text) is not None
