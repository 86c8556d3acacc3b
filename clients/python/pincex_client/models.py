"""What the exchange tells, as plain frozen dataclasses with `Decimal` and `datetime`.

Amounts keep the digits that the exchange sent. An empty string of the contract ("none", "not yet") is None here.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class Side(StrEnum):
    """Which side of the book."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """How an order behaves towards the book."""

    LIMIT = "LIMIT"
    MARKET = "MARKET"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"


class TimeInForce(StrEnum):
    """How long an order lives."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTD = "GTD"


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING = "PENDING"
    PARTIAL = "PARTIAL"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"


class SelfTradePrevention(StrEnum):
    """What happens when an account would trade with itself."""

    NONE = "NONE"
    CANCEL_NEWEST = "CANCEL_NEWEST"
    CANCEL_OLDEST = "CANCEL_OLDEST"
    CANCEL_BOTH = "CANCEL_BOTH"


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stood at `sequence`."""

    order_id: str
    client_order_id: str
    account: str
    symbol: str
    side: str
    order_type: str
    time_in_force: str
    status: str
    quantity: Decimal
    filled_quantity: Decimal
    open_quantity: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    filled_notional: Decimal
    average_price: Decimal | None
    fee_paid: Decimal
    post_only: bool
    self_trade_prevention: str
    cancel_reason: str
    triggered: bool
    expire_time: datetime | None
    created_time: datetime | None
    updated_time: datetime | None
    sequence: int
    api_key: str = ""
    """The key that placed it, "ak_..."; empty where a person did."""

    @property
    def is_open(self) -> bool:
        """Whether it still rests or sleeps."""
        return self.status in {OrderStatus.PENDING, OrderStatus.PARTIAL}


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution as its account sees it. Both sides of a trade share `trade_id`."""

    trade_id: str
    order_id: str
    client_order_id: str
    account: str
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    notional: Decimal
    fee: Decimal
    is_maker: bool
    trade_time: datetime | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Trade:
    """One execution as the public sees it."""

    trade_id: str
    symbol: str
    price: Decimal
    quantity: Decimal
    taker_side: str
    trade_time: datetime | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Candle:
    """The trades of one interval. `sequence` is the last trade's; once `closed` it is never changed."""

    symbol: str
    interval: str
    open_time: datetime | None
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    closed: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class Ticker:
    """The 24 hours of a market that end with `ticker_time`; what is not there yet is None."""

    symbol: str
    last_price: Decimal | None
    last_quantity: Decimal | None
    best_bid: Decimal | None
    best_bid_quantity: Decimal | None
    best_ask: Decimal | None
    best_ask_quantity: Decimal | None
    open_price: Decimal | None
    high_price: Decimal | None
    low_price: Decimal | None
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    price_change: Decimal | None
    sequence: int
    ticker_time: datetime | None


@dataclass(frozen=True, slots=True)
class Level:
    """One price of an aggregated book."""

    price: Decimal
    quantity: Decimal
    order_count: int


@dataclass(frozen=True, slots=True)
class Book:
    """An aggregated book at `sequence`, best first on both sides; counts and totals cover all levels."""

    symbol: str
    sequence: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    checksum: int
    mode: str
    bid_order_count: int
    ask_order_count: int
    bid_level_count: int
    ask_level_count: int
    bid_quantity: Decimal
    ask_quantity: Decimal


@dataclass(frozen=True, slots=True)
class Market:
    """A market and its rules."""

    symbol: str
    base_asset: str
    quote_asset: str
    tick_size: Decimal
    lot_size: Decimal
    mode: str
    min_quantity: Decimal | None
    max_quantity: Decimal | None
    min_notional: Decimal | None
    maker_fee_ppm: int
    taker_fee_ppm: int
    price_band_ppm: int
    market_protection_ppm: int
    default_self_trade_prevention: str
    last_price: Decimal | None
    reference_price: Decimal | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Balance:
    """One asset of one account: `total` = `available` + `held`."""

    account: str
    asset: str
    available: Decimal
    held: Decimal
    total: Decimal
    sequence: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the caller may send in a second and have open, and how much of it is in use; a limit of 0 is none.

    `orders_left` are those that the instance that answered would take at once now.
    """

    account: str
    tier: str
    api_key: str
    orders_per_second: int
    orders_burst: int
    orders_left: int
    max_open_orders: int
    open_orders: int
    key_max_open_orders: int
    key_open_orders: int
    sequence: int


@dataclass(frozen=True, slots=True)
class BusyAccount:
    """What an account did lately: orders placed and taken back, executions."""

    account: str
    order_count: int
    cancel_count: int
    fill_count: int


@dataclass(frozen=True, slots=True)
class BusyAccounts:
    """Accounts that placed more orders than asked about, the busiest first. `seen_seconds` is how far back the instance
    that answered has seen: less than the window after its start.
    """

    accounts: tuple[BusyAccount, ...]
    seen_seconds: float


@dataclass(frozen=True, slots=True)
class CancelledOrders:
    """How many orders a mass cancellation took, and at which sequence."""

    cancelled_count: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Health:
    """How the instance that answered is."""

    status: str
    instance: str
    role: str
    sequence: int
    server_time: datetime | None
    version: str


@dataclass(frozen=True, slots=True)
class Switches:
    """The switches of the whole exchange."""

    accept_new_orders: bool
    maintenance_mode: bool
    circuit_breaker: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset; its smallest amount is 10^-decimals."""

    code: str
    decimals: int


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How many open orders an account may have (0: no limit) and has."""

    account: str
    max_open_orders: int
    open_orders: int
    sequence: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """Where an engine stands; `state_hash` is equal on every instance at an equal sequence."""

    instance: str
    role: str
    sequence: int
    state_hash: str
    epoch: int
    floor_sequence: int
    incarnation: str
    core_mode: str
    rules_version: int
    snapshot_sequence: int
    open_order_count: int
    account_count: int


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One instance of the trading engine at the sequence of a comparison.

    `state_hash` is empty where it did not answer in time, `book_hash` where no market was asked for too; `sequence` is the
    newest that it had applied when it last said so.
    """

    instance: str
    role: str
    sequence: int
    state_hash: str
    book_hash: str
    version: str
    core_mode: str
    supported_rules_version: int


@dataclass(frozen=True, slots=True)
class ReplicaComparison:
    """All instances side by side, their hashes taken at `sequence`; `identical`: those that answered are equal."""

    sequence: int
    identical: bool
    replicas: tuple[ReplicaState, ...]


@dataclass(frozen=True, slots=True)
class HandOver:
    """Leadership that was given away: the instance that led, and the last sequence that it wrote."""

    instance: str
    sequence: int


@dataclass(frozen=True, slots=True)
class RulesActivation:
    """The rules in force, from the command after `sequence` on."""

    rules_version: int
    sequence: int


@dataclass(frozen=True, slots=True)
class BookState:
    """A book as operators see it."""

    symbol: str
    instance: str
    sequence: int
    book_hash: str
    mode: str
    bid_order_count: int
    ask_order_count: int
    bid_level_count: int
    ask_level_count: int
    stop_order_count: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    last_price: Decimal | None


@dataclass(frozen=True, slots=True)
class InvariantCheck:
    """One named check of a book."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Validation:
    """The outcome of every check of a book."""

    symbol: str
    sequence: int
    valid: bool
    checks: tuple[InvariantCheck, ...]


@dataclass(frozen=True, slots=True)
class JournalVerification:
    """How far a verification of the journal is; with `done` what it found.

    Where `valid` is false then, `difference` names the exact place and what differs there; where it is true, `frame_hash`
    and `state_hash` are those after the last frame.
    """

    sequence: int
    to_sequence: int
    frame_count: int
    command_count: int
    snapshot_count: int
    done: bool
    valid: bool
    difference: str
    frame_hash: str
    state_hash: str


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What the journal says about a book, beside the one that was in use."""

    symbol: str
    sequence: int
    hash_before: str
    hash_rebuilt: str
    identical: bool
    differences: tuple[str, ...]
    replayed_commands: int
    from_sequence: int
    order_count: int
