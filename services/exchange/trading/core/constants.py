"""Numbers with names: what commands, orders and markets are made of, and the bounds of the engine.

Values that also stand in `proto/pincex/trading/v1/types.proto` are equal to those (a test holds that).
"""

from __future__ import annotations

from typing import Any, Final

Boxed = Any
"""An int that is only passed on, from commands to orders, events and results. The compiled core holds an `int` as a bare
number and makes an object of it each time that one is needed; what is declared as this stays the object it came as.
"""

RULES_VERSION: Final = 3
"""Newest matching rules that this build knows; what each version says stands in docs/UPGRADES.md."""

RULES_KEEP_PRIORITY: Final = 2
"""From this version of the rules on, a REPLACE that keeps the price and does not raise the open quantity keeps the
order's place in the queue; before, every REPLACE goes to the back.
"""

RULES_KNOW_KEYS: Final = 3
"""From this version of the rules on, a PLACE may say which API key sent it and how many open orders key and account may
have, and a MASS_CANCEL may be of one key; before, what these commands say of it counts for nothing.
"""

# Side
BUY: Final = 1
SELL: Final = 2

# OrderType
LIMIT: Final = 1
MARKET: Final = 2
STOP: Final = 3
STOP_LIMIT: Final = 4

# TimeInForce
GTC: Final = 1
IOC: Final = 2
FOK: Final = 3
GTD: Final = 4

# OrderStatus
PENDING: Final = 1
PARTIAL: Final = 2
FILLED: Final = 3
CANCELLED: Final = 4

# SelfTradePrevention
STP_DEFAULT: Final = 0
STP_NONE: Final = 1
STP_CANCEL_NEWEST: Final = 2
STP_CANCEL_OLDEST: Final = 3
STP_CANCEL_BOTH: Final = 4

# CancelReason
CANCEL_REQUESTED: Final = 1
CANCEL_REMAINDER: Final = 2
CANCEL_EXPIRED: Final = 3
CANCEL_SELF_TRADE: Final = 4
CANCEL_OPERATOR: Final = 5
CANCEL_DISCONNECTED: Final = 6
CANCEL_REDUCED: Final = 7

# MarketMode
OPEN: Final = 1
CANCEL_ONLY: Final = 2
HALTED: Final = 3

# AdjustmentKind
ADJUST_CREDIT: Final = 1
ADJUST_HOLD: Final = 2
ADJUST_SETTLE: Final = 3
ADJUST_RELEASE: Final = 4
ADJUST_TRANSFER: Final = 5

# SessionState
SESSION_ATTACHED: Final = 1
SESSION_CLOSED: Final = 2
SESSION_EXPIRED: Final = 3

# Switches
SWITCH_ACCEPT_NEW_ORDERS: Final = 1
SWITCH_MAINTENANCE: Final = 2
SWITCH_CIRCUIT_BREAKER: Final = 3

PPM: Final = 1_000_000
"""Rates and bands are whole parts per million."""

MAX_FEE_PPM: Final = 100_000
"""Ten per cent: a fee can never exceed what it is charged on."""

MAX_AMOUNT: Final = 4_000_000_000_000_000_000
"""Most smallest units of one asset in all accounts together, and largest notional: below 2**62, so that no sum or
amount leaves a 64-bit integer in the journal, in SQL's BIGINT or in a compiled form."""

MAX_TICKS: Final = 1_000_000_000_000
"""Largest price in ticks."""

MAX_LOTS: Final = 1_000_000_000_000
"""Largest quantity in lots."""

MAX_TRIGGERS_PER_COMMAND: Final = 64
"""Stop orders woken and matched behind one command; more wait for the next command or tick."""

MAX_MARKETS: Final = 10_000
MAX_ASSETS: Final = 10_000
MAX_ACCOUNTS: Final = 10_000_000
MAX_SESSIONS_PER_ACCOUNT: Final = 16
SESSION_RESULT_WINDOW: Final = 8_192
"""Results that a session remembers for repeated command numbers."""

FEE_ACCOUNT: Final = "$fees"
"""The exchange's own account, which fees are paid to. No client name contains a dollar sign."""
