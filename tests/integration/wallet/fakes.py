"""Engine and settlement as the wallet sees them, in memory, with the engine's rules: ids count once, refusals are remembered."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from exchange.domain.decimals import format_units, parse_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from collections.abc import Callable

DECIMALS = {"BTC": 8, "ETH": 8, "USD": 2}


class FakeAssets:
    """See `wallet.engine.Assets`."""

    def __init__(self) -> None:
        self.known = dict(DECIMALS)

    async def decimals(self, asset: str) -> int:
        if not asset:
            reject(ErrorReason.FIELD_REQUIRED, field="asset")
        if asset not in self.known:
            reject(ErrorReason.UNKNOWN_ASSET, asset=asset)
        return self.known[asset]

    async def all(self) -> dict[str, int]:
        return dict(self.known)


class FakeEngine:
    """See `wallet.engine.Funds`. `failing` raises from the next calls, before or after they have happened."""

    def __init__(self) -> None:
        self.sequence = 0
        self.free: dict[tuple[str, str], int] = defaultdict(int)
        self.held: dict[tuple[str, str], int] = defaultdict(int)
        self.holds: dict[tuple[str, str], tuple[str, int]] = {}
        # (account, request id): what was asked, and the sequence or the reason of the refusal.
        self.answers: dict[tuple[str, str], tuple[tuple[Any, ...], int, int]] = {}
        self.credits: dict[str, tuple[str, str, int]] = {}
        self.settled: dict[str, tuple[str, str, int]] = {}
        self.forgotten: datetime | None = None
        self.away = 0
        self.lost_answers = 0

    # --- for tests ---

    def forget(self) -> None:
        """The ids of all so far are no longer known."""
        self.answers.clear()
        self.forgotten = datetime.now(UTC)

    def total(self, asset: str) -> int:
        """Of all accounts."""
        return sum(units for (_, code), units in [*self.free.items(), *self.held.items()] if code == asset)

    def give(self, account: str, asset: str, units: int) -> None:
        """Money from nowhere, which no network has."""
        self.free[account, asset] += units

    def spend(self, account: str, asset: str, units: int, to_account: str = "other") -> int:
        """By trading: as much as there is, at most so much."""
        taken = min(units, self.free[account, asset])
        self.free[account, asset] -= taken
        self.free[to_account, asset] += taken
        return taken

    # --- FundsService ---

    async def deposit(
        self, account: str, asset: str, amount: str, request_id: str, reason: str, asked_at: datetime | None = None
    ) -> int:
        units = _units(asset, amount)

        def move() -> None:
            assert request_id not in self.credits, "credited twice"
            self.free[account, asset] += units
            self.credits[request_id] = (account, asset, units)

        return self._once(account, request_id, ("deposit", asset, units), move, asked_at)

    async def hold(self, account: str, asset: str, amount: str, request_id: str, reason: str) -> int:
        units = _units(asset, amount)

        def move() -> None:
            if (account, request_id) in self.holds:
                reject(ErrorReason.ALREADY_EXISTS)
            if self.free[account, asset] < units:
                reject(ErrorReason.INSUFFICIENT_FUNDS, asset=asset)
            self.free[account, asset] -= units
            self.held[account, asset] += units
            self.holds[account, request_id] = (asset, units)

        return self._once(account, request_id, ("hold", asset, units), move)

    async def settle(self, account: str, hold_id: str, request_id: str, reason: str) -> int:
        def move() -> None:
            asset, units = self._take_hold(account, hold_id)
            self.settled[hold_id] = (account, asset, units)

        return self._once(account, request_id, ("settle", hold_id), move)

    async def release(self, account: str, hold_id: str, request_id: str, reason: str) -> int:
        def move() -> None:
            asset, units = self._take_hold(account, hold_id)
            self.free[account, asset] += units

        return self._once(account, request_id, ("release", hold_id), move)

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
        units = _units(asset, amount)

        def move() -> None:
            if self.free[account, asset] < units:
                reject(ErrorReason.INSUFFICIENT_FUNDS, asset=asset)
            self.free[account, asset] -= units
            self.free[to_account, asset] += units

        return self._once(account, request_id, ("transfer", to_account, asset, units), move, asked_at)

    async def available(self, account: str, asset: str, min_sequence: int) -> str:
        assert min_sequence <= self.sequence
        return format_units(self.free[account, asset], DECIMALS[asset])

    def _take_hold(self, account: str, hold_id: str) -> tuple[str, int]:
        if (account, hold_id) not in self.holds:
            reject(ErrorReason.HOLD_NOT_FOUND)
        asset, units = self.holds.pop((account, hold_id))
        self.held[account, asset] -= units
        return asset, units

    def _once(
        self,
        account: str,
        request_id: str,
        asked: tuple[Any, ...],
        move: Callable[[], None],
        asked_at: datetime | None = None,
    ) -> int:
        if self.away:
            self.away -= 1
            raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)
        known = self.answers.get((account, request_id))
        if known is None:
            if asked_at is not None and self.forgotten is not None and asked_at <= self.forgotten:
                reject(ErrorReason.REQUEST_TOO_OLD)
            self.sequence += 1
            reason = 0
            try:
                move()
            except ServiceError as error:
                reason = error.reason
            known = self.answers[account, request_id] = (asked, self.sequence, reason)
        if known[0] != asked:
            reject(ErrorReason.DUPLICATE_ID)
        if self.lost_answers:
            self.lost_answers -= 1
            raise ServiceError(ErrorReason.UPSTREAM_TIMEOUT)
        if known[2]:
            reject(known[2])
        return known[1]


class FakeLedger:
    """See `wallet.engine.Ledger`. `behind`: it cannot say what is not there."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.losses: dict[str, tuple[str, str, int]] = {}
        self.behind = False
        self.away = 0

    async def record_loss(self, custody_account: str, asset: str, amount: str, request_id: str, reason: str) -> None:
        if self.away:
            self.away -= 1
            raise ServiceError(ErrorReason.NOT_READY)
        loss = (custody_account, asset, _units(asset, amount))
        assert self.losses.setdefault(request_id, loss) == loss

    async def credited(self, account: str, asset: str, request_id: str, since: datetime | None = None) -> int | None:
        del since
        found = self._engine.credits.get(request_id)
        if found is not None:
            assert found[:2] == (account, asset)
            return 7
        return None if self.behind else 0

    def lost(self, asset: str) -> int:
        """All losses of an asset."""
        return sum(units for _, code, units in self.losses.values() if code == asset)


def _units(asset: str, amount: str) -> int:
    units = parse_units(amount, DECIMALS[asset])
    assert units > 0
    return units
