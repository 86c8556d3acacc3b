"""Events: plain tuples with named positions (a tuple costs 22 ns, a frozen dataclass 600).

The sequence and time of an event are those of the command that caused it and stand beside it, not in it. Units as in
`commands.py`. Wherever an event touches the book it says side, price and lots, so that a feed needs nothing else; and
wherever it touches an order it says all that changed, so that a client needs nothing else.
"""

from __future__ import annotations

from typing import Any, Final

from exchange.trading.core.constants import Boxed

Event = tuple[Any, ...]

# Kinds
ORDER_ACCEPTED: Final[Boxed] = 1
ORDER_REJECTED: Final[Boxed] = 2
ORDER_TRIGGERED: Final[Boxed] = 3
TRADE: Final[Boxed] = 4
ORDER_REDUCED: Final[Boxed] = 5
ORDER_REPLACED: Final[Boxed] = 6
ORDER_CANCELLED: Final[Boxed] = 7
BALANCE_ADJUSTED: Final[Boxed] = 8
COMMAND_REJECTED: Final[Boxed] = 9
ASSET_CREATED: Final[Boxed] = 10
MARKET_CHANGED: Final[Boxed] = 11
SWITCHES_CHANGED: Final[Boxed] = 12
SESSION_CHANGED: Final[Boxed] = 13
LIMITS_CHANGED: Final[Boxed] = 14
BOOK_HASHED: Final[Boxed] = 15
RULES_ACTIVATED: Final[Boxed] = 16
MASS_CANCELLED: Final[Boxed] = 17

E_KIND: Final = 0

# ORDER_ACCEPTED, ORDER_TRIGGERED, ORDER_REDUCED, ORDER_REPLACED and ORDER_CANCELLED start alike
O_ORDER_ID: Final = 1
O_ACCOUNT: Final = 2
O_MARKET: Final = 3
O_SIDE: Final = 4
O_PRICE: Final = 5  # limit or protection price now; 0 for none

# ORDER_ACCEPTED
OA_RESTING: Final = 6  # lots on the book after matching
OA_HELD: Final = 7  # moved from available to held
OA_COMMAND: Final = 8  # the PLACE command
OA_STP: Final = 9  # self-trade prevention in force

# ORDER_REJECTED
OR_ACCOUNT: Final = 1
OR_MARKET: Final = 2
OR_CLIENT_ORDER_ID: Final = 3
OR_REASON: Final = 4

# ORDER_TRIGGERED
OT_RESTING: Final = 6
OT_OPEN: Final = 7  # lots open as it woke

# TRADE
T_INDEX: Final = 1  # of this trade among those of its command, from 1
T_MARKET: Final = 2
T_PRICE: Final = 3
T_LOTS: Final = 4
T_TAKER_SIDE: Final = 5
T_MAKER_ORDER: Final = 6
T_TAKER_ORDER: Final = 7
T_MAKER_ACCOUNT: Final = 8
T_TAKER_ACCOUNT: Final = 9
T_MAKER_FEE: Final = 10
T_TAKER_FEE: Final = 11
T_BUYER_RELEASED: Final = 12  # left the buyer's held quote; less cost and fee went back to available
T_MAKER_OPEN: Final = 13
T_MAKER_FILLED: Final = 14
T_MAKER_NOTIONAL: Final = 15
T_MAKER_FEE_PAID: Final = 16
T_TAKER_OPEN: Final = 17
T_TAKER_FILLED: Final = 18
T_TAKER_NOTIONAL: Final = 19
T_TAKER_FEE_PAID: Final = 20

# ORDER_REDUCED
OD_REDUCED: Final = 6
OD_OPEN: Final = 7
OD_RELEASED: Final = 8
OD_FILLED: Final = 9
OD_NOTIONAL: Final = 10
OD_FEE_PAID: Final = 11
OD_WAS_RESTING: Final = 12

# ORDER_REPLACED
OP_OLD_PRICE: Final = 6
OP_OLD_OPEN: Final = 7
OP_OPEN: Final = 8
OP_RESTING: Final = 9
OP_HELD_CHANGE: Final = 10
OP_FILLED: Final = 11
OP_NOTIONAL: Final = 12
OP_FEE_PAID: Final = 13

# ORDER_CANCELLED
OC_LOTS: Final = 6
OC_REASON: Final = 7
OC_RELEASED: Final = 8
OC_WAS_RESTING: Final = 9
OC_FILLED: Final = 10
OC_NOTIONAL: Final = 11
OC_FEE_PAID: Final = 12

# BALANCE_ADJUSTED
B_ADJUSTMENT: Final = 1
B_ACCOUNT: Final = 2
B_ASSET: Final = 3
B_AMOUNT: Final = 4
B_TO: Final = 5
B_REFERENCE: Final = 6

# COMMAND_REJECTED
CR_ACCOUNT: Final = 1
CR_REFERENCE: Final = 2
CR_REASON: Final = 3

# ASSET_CREATED
AC_ASSET: Final = 1
AC_CODE: Final = 2
AC_DECIMALS: Final = 3

# MARKET_CHANGED
MC_MARKET: Final = 1
MC_MODE: Final = 2
MC_DEFINITION: Final = 3

# SWITCHES_CHANGED
SW_ACCEPT: Final = 1
SW_MAINTENANCE: Final = 2
SW_BREAKER: Final = 3

# SESSION_CHANGED
SC_ACCOUNT: Final = 1
SC_SESSION: Final = 2
SC_STATE: Final = 3

# LIMITS_CHANGED
LC_ACCOUNT: Final = 1
LC_MAX_OPEN: Final = 2

# BOOK_HASHED
BH_MARKET: Final = 1
BH_HASH: Final = 2

# RULES_ACTIVATED
RA_VERSION: Final = 1

# MASS_CANCELLED
MX_ACCOUNT: Final = 1
MX_MARKET: Final = 2
MX_COUNT: Final = 3

Result = tuple[Any, ...]
"""What a command's caller is told. Remembered with the id, so a repeat gets the very same."""

R_SEQUENCE: Final = 0
R_TIME: Final = 1
R_REASON: Final = 2
R_ORDER_ID: Final = 3
R_STATUS: Final = 4
R_OPEN: Final = 5
R_FILLED: Final = 6
R_NOTIONAL: Final = 7
R_FEE_PAID: Final = 8
R_PRICE: Final = 9
R_CANCEL_REASON: Final = 10
R_COUNT: Final = 11  # cancelled orders, or the number of the asset or market made, or a session's last number
R_COMMAND: Final = 12  # the command, to tell a repeat from another body
