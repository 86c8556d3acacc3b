"""A small exchange that speaks the contract: its state outlives its server, as the real one's does.

`FakeExchange` is the durable part; `FakeServer` serves it on 127.0.0.1 and can be killed and started again. Knobs make
it lose answers, drain, forget sessions and keep silent.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_service_pb2,
    admin_service_pb2_grpc,
    health_service_pb2,
    health_service_pb2_grpc,
    market_service_pb2,
    market_service_pb2_grpc,
    order_service_pb2,
    order_service_pb2_grpc,
    types_pb2,
)
from pincex.trading.v1 import order_session_pb2 as wire
from pincex_client.book import checksum_of
from pincex_client.session_link import AGAIN_REASONS
from tests.unit.client.matcher import Made, Matcher

CODES = {
    "UNKNOWN_SYMBOL": grpc.StatusCode.NOT_FOUND,
    "ORDER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "DUPLICATE_ID": grpc.StatusCode.ALREADY_EXISTS,
    "INSUFFICIENT_FUNDS": grpc.StatusCode.FAILED_PRECONDITION,
    "JOURNAL_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "MAINTENANCE": grpc.StatusCode.UNAVAILABLE,
    "SESSION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
}


async def refuse(
    context: Any, reason: str, message: str = "", *, retry_after: float | None = None, **metadata: str
) -> None:
    """End the call as the exchange ends it."""
    code = CODES.get(reason, grpc.StatusCode.INVALID_ARGUMENT)
    status = status_pb2.Status(code=code.value[0], message=message or reason.lower())
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="pincex", metadata=metadata))
    if "field" in metadata:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=metadata["field"], description=message)
        status.details.add().Pack(bad)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after * 1_000))
        status.details.add().Pack(retry)
    trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, message or reason.lower(), trailing)


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
        self.pings = 0
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
        result = getattr(self, f"_{kind}")(account_name, account, request)
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
        everybody = {order_id: order for account in self.accounts.values() for order_id, order in account.orders.items()} if made else {}
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


def account_of(context: Any) -> str:
    return str(dict(context.invocation_metadata()).get("x-pincex-account", "demo"))


class Orders(order_service_pb2_grpc.OrderServiceServicer):
    """Orders, session and the account's events."""

    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange

    async def _unary(self, kind: str, request: Any, context: Any) -> Any:
        self.exchange.requests.append(request)
        if self.exchange.failures:
            reason, retry_after = self.exchange.failures.pop(0)
            await refuse(context, reason, retry_after=retry_after)
        account = account_of(context)
        result = self.exchange.apply(account, wire.SessionCommand(**{kind: request}))
        if result.reason:
            name = ErrorReason.Name(result.reason)
            await refuse(context, name, result.message, field="symbol", symbol=getattr(request, "symbol", ""))
        return result

    async def _order(self, kind: str, request: Any, context: Any) -> Any:
        result = await self._unary(kind, request, context)
        return self.exchange.accounts[account_of(context)].orders[result.order_id]

    async def PlaceOrder(self, request, context):  # type: ignore[override]
        return await self._order("place", request, context)

    async def CancelOrder(self, request, context):  # type: ignore[override]
        return await self._order("cancel", request, context)

    async def ReplaceOrder(self, request, context):  # type: ignore[override]
        return await self._order("replace", request, context)

    async def ReduceOrder(self, request, context):  # type: ignore[override]
        return await self._order("reduce", request, context)

    async def CancelAllOrders(self, request, context):  # type: ignore[override]
        result = await self._unary("cancel_all", request, context)
        return order_service_pb2.CancelAllOrdersResponse(
            cancelled_count=result.cancelled_count, sequence=result.sequence
        )

    async def BatchPlaceOrders(self, request, context):  # type: ignore[override]
        account = account_of(context)
        results = [self.exchange.apply(account, wire.SessionCommand(place=order)) for order in request.orders]
        return order_service_pb2.BatchPlaceOrdersResponse(results=results)

    async def GetOrder(self, request, context):  # type: ignore[override]
        self.exchange.requests.append(request)
        found = self.exchange.accounts[account_of(context)].orders.get(request.order_id)
        if found is None:
            await refuse(context, "ORDER_NOT_FOUND", "no such order")
        return found

    async def GetOrderByClientOrderId(self, request, context):  # type: ignore[override]
        for order in self.exchange.accounts[account_of(context)].orders.values():
            if order.client_order_id == request.client_order_id:
                return order
        await refuse(context, "ORDER_NOT_FOUND", "no such order")

    async def ListOrders(self, request, context):  # type: ignore[override]
        found = list(self.exchange.accounts[account_of(context)].orders.values())[::-1]
        if not request.statuses:
            found = [order for order in found if order.status in (types_pb2.PENDING, types_pb2.PARTIAL)]
        start = int(request.page_token or "0")
        page = found[start : start + 2]  # small pages: the client has to turn them
        token = str(start + 2) if start + 2 < len(found) else ""
        return order_service_pb2.ListOrdersResponse(orders=page, next_page_token=token)

    async def ListTrades(self, request, context):  # type: ignore[override]
        found = self.exchange.accounts[account_of(context)].fills[::-1]
        start = int(request.page_token or "0")
        page = found[start : start + request.page_size]
        token = str(start + request.page_size) if start + request.page_size < len(found) else ""
        return order_service_pb2.ListTradesResponse(trades=page, next_page_token=token)

    async def OrderSession(self, request_iterator, context):  # type: ignore[override]
        exchange = self.exchange
        answers: asyncio.Queue[wire.OrderSessionResponse | None] = asyncio.Queue()
        reader = asyncio.create_task(self._session(request_iterator, context, answers))
        try:
            while True:
                answer = await answers.get()
                if answer is None:
                    break
                if answer.WhichOneof("message") == "results":
                    await exchange.hold.wait()
                yield answer
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            if not reader.cancelled() and reader.exception() is not None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")

    async def _session(self, requests: Any, context: Any, answers: "asyncio.Queue[Any]") -> None:
        exchange = self.exchange
        session = FakeSession()
        account = account_of(context)
        try:
            async for request in requests:
                match request.WhichOneof("message"):
                    case "open":
                        if exchange.open_refusal:
                            end = types_pb2.StreamEnd(reason=exchange.open_refusal, message="refused")
                            answers.put_nowait(wire.OrderSessionResponse(end=end))
                            return
                        known = request.open.session_id in exchange.sessions
                        session = exchange.sessions.setdefault(request.open.session_id, FakeSession())
                        if exchange.silent:
                            continue
                        answers.put_nowait(wire.OrderSessionResponse(opened=self._opened(request, session, known)))
                    case "batch":
                        answer = self._batch(account, session, request.batch)
                        answers.put_nowait(wire.OrderSessionResponse(results=answer))
                        if exchange.drain_after_results:
                            exchange.drain_after_results -= 1
                            answers.put_nowait(wire.OrderSessionResponse(drain=types_pb2.DrainNotice()))
                    case "ping":
                        exchange.pings += 1
                        pong = wire.SessionPong(nonce=request.ping.nonce, head_sequence=exchange.sequence)
                        answers.put_nowait(wire.OrderSessionResponse(pong=pong))
                    case "close":
                        exchange.sessions = {k: v for k, v in exchange.sessions.items() if v is not session}
                        return
        finally:
            answers.put_nowait(None)

    def _opened(self, request: Any, session: FakeSession, known: bool) -> wire.SessionOpened:  # noqa: FBT001
        return wire.SessionOpened(
            session_id=request.open.session_id,
            last_number=session.last_number,
            result_window=10_000,
            max_batch_size=self.exchange.max_batch_size,
            max_outstanding=self.exchange.max_outstanding,
            resumed=known,
        )

    def _batch(self, account: str, session: FakeSession, batch: wire.CommandBatch) -> wire.ResultBatch:
        exchange = self.exchange
        exchange.largest_batch = max(exchange.largest_batch, len(batch.commands))
        results = []
        for number, command in enumerate(batch.commands, start=batch.first_number):
            if exchange.results_override:
                name = exchange.results_override.pop(0)
                results.append(wire.CommandResult(reason=ErrorReason.Value(name), message="as the test says"))
                if name not in AGAIN_REASONS:
                    session.results[number] = results[-1]
                    session.last_number = number
                    continue
                break
            if number <= session.last_number:
                results.append(session.results[number])
                continue
            assert number == session.last_number + 1, f"gap: {number} after {session.last_number}"
            session.results[number] = exchange.apply(account, command)
            session.last_number = number
            results.append(session.results[number])
        if exchange.drop_before_results:
            exchange.drop_before_results -= 1
            raise ConnectionError("the connection is lost before the results are sent")
        return wire.ResultBatch(first_number=batch.first_number, results=results)

    async def StreamOrderEvents(self, request, context):  # type: ignore[override]
        account = self.exchange.accounts[account_of(context)]
        position = len(account.log)
        previous = 0
        if request.resume_token:
            position = int(request.resume_token)
            previous = account.log[position - 1].sequence if position else 0
        else:
            open_orders = [order for order in account.orders.values() if Decimal(order.open_quantity)]
            snapshot = order_service_pb2.OrdersSnapshot(orders=open_orders, complete=True)
            previous = self.exchange.sequence
            yield order_service_pb2.OrderEvent(sequence=previous, resume_token=str(position), snapshot=snapshot)
        while True:
            changed = account.changed
            while position < len(account.log):
                event = order_service_pb2.OrderEvent()
                event.CopyFrom(account.log[position])
                position += 1
                event.prev_sequence, previous = previous, event.sequence
                event.resume_token = str(position)
                yield event
            await changed.wait()


class Markets(market_service_pb2_grpc.MarketServiceServicer):
    """Markets, books, and streams played from a script: one list of messages for each connection."""

    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange
        self.scripts: list[list[Any]] = []
        self.tokens: list[str] = []

    async def ListMarkets(self, request, context):  # type: ignore[override]
        return market_service_pb2.ListMarketsResponse(markets=self.exchange.markets.values())

    async def GetMarket(self, request, context):  # type: ignore[override]
        if request.symbol not in self.exchange.markets:
            await refuse(context, "UNKNOWN_SYMBOL", "no such market", symbol=request.symbol)
        return self.exchange.markets[request.symbol]

    async def GetOrderBook(self, request, context):  # type: ignore[override]
        if request.symbol not in self.exchange.markets:
            await refuse(context, "UNKNOWN_SYMBOL", "no such market", symbol=request.symbol)
        return self.exchange.book(request.symbol, request.depth or 50)

    async def ListMarketTrades(self, request, context):  # type: ignore[override]
        return market_service_pb2.ListMarketTradesResponse()

    async def StreamOrderBook(self, request, context):  # type: ignore[override]
        async for message in self._script(request, context):
            yield message

    async def StreamTrades(self, request, context):  # type: ignore[override]
        async for message in self._script(request, context):
            yield message

    async def _script(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.tokens.append(request.resume_token)
        if not self.scripts:
            await asyncio.Event().wait()
        for step in self.scripts.pop(0):
            match step:
                case str():
                    await refuse(context, step, "as the test says")
                case None:
                    await asyncio.Event().wait()  # mute for ever
                case _:
                    yield step


class Accounts(account_service_pb2_grpc.AccountServiceServicer):
    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange

    async def ListBalances(self, request, context):  # type: ignore[override]
        name = account_of(context)
        balances = [
            types_pb2.Balance(account=name, asset=asset, available=str(amount), held="0", total=str(amount))
            for (account, asset), amount in sorted(self.exchange.balances.items())
            if account == name
        ]
        return account_service_pb2.ListBalancesResponse(balances=balances)

    async def CreditAccount(self, request, context):  # type: ignore[override]
        if request.request_id not in self.exchange.credits:
            self.exchange.credits.add(request.request_id)
            self.exchange.balances[request.account, request.asset] += Decimal(request.amount)
        total = str(self.exchange.balances[request.account, request.asset])
        return types_pb2.Balance(
            account=request.account, asset=request.asset, available=total, held="0", total=total
        )

    async def StreamBalances(self, request, context):  # type: ignore[override]
        name = account_of(context)
        listed = await self.ListBalances(request, context)
        yield account_service_pb2.BalanceUpdate(
            sequence=1, snapshot=account_service_pb2.BalanceList(balances=listed.balances)
        )
        changed = types_pb2.Balance(account=name, asset="USD", available="5", held="0", total="5")
        yield account_service_pb2.BalanceUpdate(
            sequence=2, prev_sequence=1, changed=account_service_pb2.BalanceList(balances=[changed])
        )
        await asyncio.Event().wait()


class Admin(admin_service_pb2_grpc.TradingAdminServiceServicer):
    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange
        self.switches = admin_service_pb2.Switches(accept_new_orders=True)

    async def CreateAsset(self, request, context):  # type: ignore[override]
        if request.code in self.exchange.assets:
            await refuse(context, "ALREADY_EXISTS", "the asset exists")
        self.exchange.assets[request.code] = types_pb2.Asset(code=request.code, decimals=request.decimals)
        return self.exchange.assets[request.code]

    async def CreateMarket(self, request, context):  # type: ignore[override]
        if request.symbol in self.exchange.markets:
            await refuse(context, "ALREADY_EXISTS", "the market exists")
        return self.exchange.add_market(
            request.symbol,
            base_asset=request.base_asset,
            quote_asset=request.quote_asset,
            tick_size=request.tick_size,
            lot_size=request.lot_size,
        )

    async def SetAccountLimits(self, request, context):  # type: ignore[override]
        return admin_service_pb2.AccountLimits(account=request.account, max_open_orders=request.max_open_orders)

    async def HaltMarket(self, request, context):  # type: ignore[override]
        self.exchange.markets[request.symbol].mode = types_pb2.HALTED
        return self.exchange.markets[request.symbol]

    async def EnableCircuitBreaker(self, request, context):  # type: ignore[override]
        self.switches.circuit_breaker = True
        return self.switches

    async def ValidateOrderBook(self, request, context):  # type: ignore[override]
        checks = [
            admin_service_pb2.InvariantCheck(name="book_not_crossed", holds=True, detail="1 < 2"),
            admin_service_pb2.InvariantCheck(name="money_conserved", holds=False, detail="one unit is missing"),
        ]
        return admin_service_pb2.ValidateOrderBookResponse(symbol=request.symbol, sequence=7, valid=False, checks=checks)


class Health(health_service_pb2_grpc.HealthServiceServicer):
    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange

    async def GetHealth(self, request, context):  # type: ignore[override]
        return health_service_pb2.Health(status="SERVING", instance="fake-1", role="LEADER", sequence=7)


class FakeServer:
    """Serves a FakeExchange; `kill` drops every connection, `start` serves again on the same port."""

    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange
        self.markets = Markets(exchange)
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Self:
        server = grpc.aio.server()
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(Orders(self.exchange), server)
        market_service_pb2_grpc.add_MarketServiceServicer_to_server(self.markets, server)
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(Accounts(self.exchange), server)
        admin_service_pb2_grpc.add_TradingAdminServiceServicer_to_server(Admin(self.exchange), server)
        health_service_pb2_grpc.add_HealthServiceServicer_to_server(Health(self.exchange), server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server
        return self

    async def kill(self) -> None:
        assert self._server is not None, "started before"
        await self._server.stop(None)
        self._server = None

    async def stop(self) -> None:
        if self._server is not None:
            await self.kill()
