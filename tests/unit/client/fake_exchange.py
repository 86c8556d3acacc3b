"""A small exchange: the durable part, which outlives its server as the real one's journal does, and the knobs."""

import asyncio
from collections import defaultdict
from decimal import Decimal
from typing import Any

from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.trading.v1 import market_service_pb2, order_service_pb2, types_pb2
from pincex.trading.v1 import order_session_pb2 as wire
from pincex_client.book import checksum_of
from tests.unit.client.matcher import Made, Matcher


class Account:
    """One account's orders and its log of events."""

    def __init__(self) -> None:
        self.orders: dict[str, types_pb2.Order] = {}
        self.log: list[order_service_pb2.OrderEvent] = []
        self.fills: list[types_pb2.Fill] = []
        self.results: dict[str, wire.CommandResult] = {}
        self.changed = asyncio.Event()

    def tell(self, sequence: int, **event: Any) -> None:
        previous = self.log[-1].sequence if self.log else 0
        self.log.append(order_service_pb2.OrderEvent(sequence=sequence, prev_sequence=previous, **event))
        self.changed.set()
        self.changed = asyncio.Event()


class FakeSession:
    def __init__(self) -> None:
        self.last_number = 0
        self.results: dict[int, wire.CommandResult] = {}


class FakeExchange:
    """Everything that is durable, and the knobs."""

    def __init__(self) -> None:
        self.sequence = 0
        self.markets: dict[str, types_pb2.Market] = {}
        self.assets: dict[str, types_pb2.Asset] = {}
        self.accounts: defaultdict[str, Account] = defaultdict(Account)
        self.matchers: defaultdict[str, Matcher] = defaultdict(Matcher)
        self.sessions: dict[str, FakeSession] = {}
        self.balances: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
        self.credits: set[str] = set()
        self.executed: list[str] = []  # client ids of the commands that were carried out, in order
        # --- knobs ---
        self.requests: list[Any] = []
        self.failures: list[tuple[str, float | None]] = []  # refusals for the next unary calls: reason, retry_after
        self.open_refusal = ""
        self.max_outstanding = 1_000
        self.max_batch_size = 1_000
        self.drop_before_results = 0  # so many batches are applied and then the connection is lost
        self.drain_after_results = 0  # so many batches are answered and then the server drains
        self.silent = False
        self.verification: list[Any] = []  # what VerifyJournal tells; a refusal where there is nothing
        self.replicas: list[Any] = []  # what CompareReplicas finds
        self.pings = 0
        self.left_out = False  # whether an event was left out already
        self.hold = asyncio.Event()  # cleared: results wait
        self.hold.set()
        self.results_override: list[str] = []  # reasons of the next session results, nothing applied
        self.largest_batch = 0
        self.most_unanswered = 0

    # --- The engine ---

    def apply(self, account_name: str, command: wire.SessionCommand) -> wire.CommandResult:
        kind = command.WhichOneof("command") or ""
        request = getattr(command, kind)
        request_id = request.client_order_id if kind == "place" else request.request_id
        account = self.accounts[account_name]
        if request_id and request_id in account.results:
            return account.results[request_id]
        self.sequence += 1
        self.executed.append(request_id)
        result: wire.CommandResult = getattr(self, f"_{kind}")(account_name, account, request)
        result.sequence = self.sequence
        if request_id:
            account.results[request_id] = result
        return result

    def _place(self, name: str, account: Account, request: Any) -> wire.CommandResult:
        if request.symbol not in self.markets:
            return wire.CommandResult(reason=ErrorReason.UNKNOWN_SYMBOL, message="no such market")
        order = types_pb2.Order(
            order_id=str(self.sequence),
            client_order_id=request.client_order_id,
            symbol=request.symbol,
            side=request.side,
            order_type=request.order_type,
            time_in_force=request.time_in_force or types_pb2.GTC,
            quantity=request.quantity,
            filled_quantity="0",
            open_quantity=request.quantity,
            price=request.price,
            account=name,
        )
        account.orders[order.order_id] = order
        tif = "IOC" if request.time_in_force == types_pb2.IOC else "GTC"
        side = types_pb2.Side.Name(request.side)
        made = self.matchers[request.symbol].place(
            order.order_id, side, Decimal(request.price), Decimal(request.quantity), tif
        )
        self._trade(order, made)
        if tif == "IOC" and Decimal(order.open_quantity):
            self._end(order)
        return self._changed(account, order)

    def _cancel(self, name: str, account: Account, request: Any) -> wire.CommandResult:
        order = self._find(account, request)
        if order is None or not Decimal(order.open_quantity):
            return wire.CommandResult(reason=ErrorReason.ORDER_NOT_FOUND, message="no such order")
        self.matchers[order.symbol].cancel(order.order_id)
        self._end(order)
        return self._changed(account, order)

    def _reduce(self, name: str, account: Account, request: Any) -> wire.CommandResult:
        order = self._find(account, request)
        if order is None:
            return wire.CommandResult(reason=ErrorReason.ORDER_NOT_FOUND, message="no such order")
        self.matchers[order.symbol].reduce(order.order_id, Decimal(request.quantity))
        order.open_quantity = str(Decimal(order.open_quantity) - Decimal(request.quantity))
        if not Decimal(order.open_quantity):
            self._end(order)
        return self._changed(account, order)

    def _replace(self, name: str, account: Account, request: Any) -> wire.CommandResult:
        order = self._find(account, request)
        if order is None:
            return wire.CommandResult(reason=ErrorReason.ORDER_NOT_FOUND, message="no such order")
        order.price = request.price
        order.open_quantity = request.quantity
        made = self.matchers[order.symbol].replace(order.order_id, Decimal(request.price), Decimal(request.quantity))
        self._trade(order, made)
        return self._changed(account, order)

    def _cancel_all(self, name: str, account: Account, request: Any) -> wire.CommandResult:
        gone = [order for order in account.orders.values() if Decimal(order.open_quantity)]
        for order in gone:
            self.matchers[order.symbol].cancel(order.order_id)
            self._end(order)
            self._changed(account, order)
        return wire.CommandResult(cancelled_count=len(gone))

    def _find(self, account: Account, request: Any) -> types_pb2.Order | None:
        if request.order_id:
            return account.orders.get(request.order_id)
        found = [order for order in account.orders.values() if order.client_order_id == request.client_order_id]
        return found[0] if found else None

    def _end(self, order: types_pb2.Order) -> None:
        order.open_quantity = "0"
        order.status = types_pb2.CANCELLED
        order.cancel_reason = types_pb2.REQUESTED

    def _changed(self, account: Account, order: types_pb2.Order) -> wire.CommandResult:
        if order.status != types_pb2.CANCELLED:
            filled, is_open = Decimal(order.filled_quantity), Decimal(order.open_quantity)
            order.status = types_pb2.PENDING if not filled else types_pb2.PARTIAL if is_open else types_pb2.FILLED
        order.sequence = self.sequence
        account.tell(self.sequence, order=order)
        return wire.CommandResult(
            order_id=order.order_id,
            status=order.status,
            filled_quantity=order.filled_quantity,
            open_quantity=order.open_quantity,
            client_order_id=order.client_order_id,
        )

    def _trade(self, taker: types_pb2.Order, made: list[Made]) -> None:
        everybody = (
            {order_id: order for account in self.accounts.values() for order_id, order in account.orders.items()}
            if made
            else {}
        )
        for index, (_, resting_id, price, quantity) in enumerate(made):
            maker = everybody[resting_id]
            for order, is_maker in ((maker, True), (taker, False)):
                order.filled_quantity = str(Decimal(order.filled_quantity) + quantity)
                order.open_quantity = str(Decimal(order.open_quantity) - quantity)
                fill = types_pb2.Fill(
                    trade_id=f"{self.sequence}-{index}",
                    order_id=order.order_id,
                    client_order_id=order.client_order_id,
                    symbol=order.symbol,
                    side=order.side,
                    price=str(price),
                    quantity=str(quantity),
                    notional=str(price * quantity),
                    fee="0",
                    is_maker=is_maker,
                    sequence=self.sequence,
                    account=order.account,
                )
                account = self.accounts[order.account]
                account.fills.append(fill)
                account.tell(self.sequence, fill=fill)

    def book(self, symbol: str, depth: int) -> market_service_pb2.OrderBook:
        matcher = self.matchers[symbol]
        sides = {}
        for side in ("BUY", "SELL"):
            sides[side] = [
                types_pb2.PriceLevel(price=str(price), quantity=str(quantity), order_count=count)
                for price in matcher.prices(side)[:depth]
                for quantity, count in [matcher.level(side, price)]
            ]
        counts = {side: sum(order.side == side for order in matcher.orders.values()) for side in ("BUY", "SELL")}
        return market_service_pb2.OrderBook(
            symbol=symbol,
            sequence=self.sequence,
            bids=sides["BUY"],
            asks=sides["SELL"],
            mode=types_pb2.OPEN,
            checksum=checksum_of(
                [f"{level.price}:{level.quantity}" for level in sides["BUY"][:10]],
                [f"{level.price}:{level.quantity}" for level in sides["SELL"][:10]],
            ),
            bid_order_count=counts["BUY"],
            ask_order_count=counts["SELL"],
            bid_quantity=str(matcher.total("BUY")),
            ask_quantity=str(matcher.total("SELL")),
            bid_level_count=len(matcher.keys["BUY"]),
            ask_level_count=len(matcher.keys["SELL"]),
        )

    def add_market(self, symbol: str, **rules: Any) -> types_pb2.Market:
        fields = {"base_asset": "BTC", "quote_asset": "USD", "tick_size": "0.01", "lot_size": "0.001"} | rules
        market = types_pb2.Market(symbol=symbol, mode=types_pb2.OPEN, **fields)
        self.markets[symbol] = market
        return market
