"""What stands in the ledger, as plain frozen dataclasses. Amounts are Decimals with their sign."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class SettlementStatus:
    """How far settlement is. `state` is RUNNING, CATCHING_UP, WAITING_FOR_ENGINE or STOPPED; `problem` says why it stopped."""

    settled_sequence: int
    head_sequence: int
    lag_seconds: float
    settled_trades: int
    reconciled_sequence: int
    reconciled_time: datetime | None
    open_incidents: int
    withdrawals_stopped: bool
    state: str
    problem: str
    instance: str


@dataclass(frozen=True, slots=True)
class LedgerBalance:
    """`kind` is available, held, fees, custody or suspense."""

    asset: str
    kind: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class LedgerAccount:
    """All that stands on one account, as of `sequence`."""

    account: str
    balances: tuple[LedgerBalance, ...]
    sequence: int


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of the ledger; `balance_after` is that of its account, asset and kind."""

    posting_id: int
    sequence: int
    account: str
    asset: str
    kind: str
    amount: Decimal
    cause: str
    reference: str
    posting_time: datetime | None
    balance_after: Decimal


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that does not agree, and what engine and ledger say."""

    kind: str
    account: str
    asset: str
    engine_amount: str
    ledger_amount: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a comparison of engine and ledger at `sequence` found."""

    sequence: int
    whole: bool
    compared_accounts: int
    compared_balances: int
    breaks: tuple[Break, ...]
    reconcile_time: datetime | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Incident:
    """A break on record; `resolved_time` is None while it is open."""

    incident_id: str
    opened_time: datetime | None
    resolved_time: datetime | None
    sequence: int
    breaks: tuple[Break, ...]
    resolution: str
    resolved_by: str


@dataclass(frozen=True, slots=True)
class Correction:
    """Money between an account and `$suspense`. `status` is PROPOSED, APPROVED, CARRIED_OUT or REJECTED."""

    correction_id: str
    account: str
    asset: str
    amount: Decimal
    reason: str
    status: str
    proposed_by: str
    decided_by: str
    sequence: int
    problem: str
    proposed_time: datetime | None
    decided_time: datetime | None


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One change of the total of an asset; `balance` is the total after it."""

    line_time: datetime | None
    cause: str
    reference: str
    amount: Decimal
    balance: Decimal
    sequence: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A period of one asset: opening balance + `change` = closing balance, and the lines sum up to `change`."""

    account: str
    asset: str
    opening_balance: Decimal
    closing_balance: Decimal
    change: Decimal
    lines: tuple[StatementLine, ...]
    sequence: int


@dataclass(frozen=True, slots=True)
class FeeLine:
    """Fees of one market and role, which is maker or taker."""

    symbol: str
    role: str
    asset: str
    fees: Decimal
    notional: Decimal
    trade_count: int


@dataclass(frozen=True, slots=True)
class FeeReport:
    """Fees of a period."""

    account: str
    lines: tuple[FeeLine, ...]
