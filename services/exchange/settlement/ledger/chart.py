"""The chart of accounts: kinds, causes, and where money comes from.

Double entry after the usual model: user and fee accounts are liabilities (what the exchange owes), custody and suspense are
assets (what it has). Amounts inside are whole smallest units; a credit is positive, a debit negative, and the lines of a
transaction sum to zero in each asset. A balance is shown as people read it: what is owed, or what is there.
"""

from __future__ import annotations

from typing import Final

# Kinds; `ledger_kinds` has the same.
AVAILABLE: Final = 1
HELD: Final = 2
FEES: Final = 3
CUSTODY: Final = 4
SUSPENSE: Final = 5
KIND_NAMES: Final = {AVAILABLE: "available", HELD: "held", FEES: "fees", CUSTODY: "custody", SUSPENSE: "suspense"}
# What the exchange has: a debit makes it more.
DEBIT_KINDS: Final = frozenset({CUSTODY, SUSPENSE})

# Causes; `ledger_causes` has the same.
TRADE: Final = 1
FEE: Final = 2
HOLD: Final = 3
RELEASE: Final = 4
DEPOSIT: Final = 5
WITHDRAWAL: Final = 6
TRANSFER: Final = 7
LOSS: Final = 8
CAUSE_NAMES: Final = {
    TRADE: "trade",
    FEE: "fee",
    HOLD: "hold",
    RELEASE: "release",
    DEPOSIT: "deposit",
    WITHDRAWAL: "withdrawal",
    TRANSFER: "transfer",
    LOSS: "loss",
}

FEE_ACCOUNT: Final = "$fees"
LOSSES: Final = "suspense:losses"
MANUAL_CUSTODY: Final = "custody:manual"

_IN: Final = frozenset({"deposit", "withdrawal-fee"})
_OUT: Final = frozenset({"withdrawal", "reversal"})


def available_kind(account: str) -> int:
    """The kind of what an account may use."""
    return FEES if account == FEE_ACCOUNT else AVAILABLE


def custody_of(reference: str) -> str:
    """Where money of this reference lies.

    `deposit:<network>:<id>` and the like name the network; anything else was done by hand.
    """
    kind, _, rest = reference.partition(":")
    network, _, rest = rest.partition(":")
    return f"custody:{network}" if network and rest and kind in _IN | _OUT else MANUAL_CUSTODY
