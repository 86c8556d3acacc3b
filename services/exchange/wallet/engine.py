"""What the wallet asks of the engine and of settlement. `service/engine.py` asks it over gRPC; tests answer it themselves.

Amounts are decimal text of the asset. Request ids are what makes each call happen once (docs/WALLET.md has their forms).
All raise ServiceError; one whose code is UNAVAILABLE or DEADLINE_EXCEEDED says nothing about whether it has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Funds(Protocol):
    """The engine's FundsService: every move returns the engine's sequence of the command."""

    async def deposit(
        self, account: str, asset: str, amount: str, request_id: str, reason: str, asked_at: datetime | None = None
    ) -> int:
        """Available grows. `asked_at`, of the first call: REQUEST_TOO_OLD where a repeat can no longer be told."""
        ...

    async def hold(self, account: str, asset: str, amount: str, request_id: str, reason: str) -> int:
        """Available to held; the request's id names the hold. INSUFFICIENT_FUNDS, which a repeat of the id gets again."""
        ...

    async def settle(self, account: str, hold_id: str, request_id: str, reason: str) -> int:
        """The money of a hold has left. HOLD_NOT_FOUND."""
        ...

    async def release(self, account: str, hold_id: str, request_id: str, reason: str) -> int:
        """The money of a hold goes back to available. HOLD_NOT_FOUND."""
        ...

    async def transfer(
        self,
        account: str,
        to_account: str,
        asset: str,
        amount: str,
        request_id: str,
        reason: str,
        asked_at: datetime | None = None,
    ) -> int:
        """From one account's available money to another's. INSUFFICIENT_FUNDS; `asked_at` as with `deposit`."""
        ...

    async def available(self, account: str, asset: str, min_sequence: int) -> str:
        """What the account may use, at `min_sequence` or later."""
        ...


class Assets(Protocol):
    """The engine's assets. They are only ever added, and keep their decimals."""

    async def decimals(self, asset: str) -> int:
        """Digits behind the point. Raises ServiceError FIELD_REQUIRED, UNKNOWN_ASSET."""
        ...

    async def all(self) -> Mapping[str, int]:
        """Decimals by code."""
        ...


class Ledger(Protocol):
    """Settlement's ledger."""

    async def record_loss(self, custody_account: str, asset: str, amount: str, request_id: str, reason: str) -> None:
        """Custody is less by so much, and no user pays."""
        ...

    async def credited(self, account: str, asset: str, request_id: str, since: datetime | None = None) -> int | None:
        """The sequence under which the ledger has a deposit of this id, 0 for none, None where the ledger cannot say now.

        Nothing before `since` is looked at: when the engine was first asked for it.
        """
        ...

    async def transferred(self, account: str, asset: str, request_id: str, since: datetime) -> int | None:
        """The same of a transfer from an account."""
        ...
