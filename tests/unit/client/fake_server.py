"""Serves a `FakeExchange` over the contract on 127.0.0.1; it can be killed and started again on the same port."""
# ruff: noqa: N802 - the contract names the methods

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_replicas_pb2,
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
from pincex_client.session_link import AGAIN_REASONS
from tests.unit.client.fake_exchange import FakeExchange, FakeSession
from tests.unit.client.fake_history import FakeHistory

CODES = {
    "UNKNOWN_SYMBOL": grpc.StatusCode.NOT_FOUND,
    "ORDER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "DUPLICATE_ID": grpc.StatusCode.ALREADY_EXISTS,
    "INSUFFICIENT_FUNDS": grpc.StatusCode.FAILED_PRECONDITION,
    "JOURNAL_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "MAINTENANCE": grpc.StatusCode.FAILED_PRECONDITION,
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

    async def PlaceOrder(self, request, context):
        return await self._order("place", request, context)

    async def CancelOrder(self, request, context):
        return await self._order("cancel", request, context)

    async def ReplaceOrder(self, request, context):
        return await self._order("replace", request, context)

    async def ReduceOrder(self, request, context):
        return await self._order("reduce", request, context)

    async def CancelAllOrders(self, request, context):
        result = await self._unary("cancel_all", request, context)
        return order_service_pb2.CancelAllOrdersResponse(
            cancelled_count=result.cancelled_count, sequence=result.sequence
        )

    async def BatchPlaceOrders(self, request, context):
        account = account_of(context)
        results = [self.exchange.apply(account, wire.SessionCommand(place=order)) for order in request.orders]
        return order_service_pb2.BatchPlaceOrdersResponse(results=results)

    async def GetOrder(self, request, context):
        self.exchange.requests.append(request)
        found = self.exchange.accounts[account_of(context)].orders.get(request.order_id)
        if found is None:
            await refuse(context, "ORDER_NOT_FOUND", "no such order")
        return found

    async def GetOrderByClientOrderId(self, request, context):
        for order in self.exchange.accounts[account_of(context)].orders.values():
            if order.client_order_id == request.client_order_id:
                return order
        return await refuse(context, "ORDER_NOT_FOUND", "no such order")

    async def ListOrders(self, request, context):
        found = list(self.exchange.accounts[account_of(context)].orders.values())[::-1]
        if not request.statuses:
            found = [order for order in found if order.status in (types_pb2.PENDING, types_pb2.PARTIAL)]
        start = int(request.page_token or "0")
        page = found[start : start + 2]  # small pages: the client has to turn them
        token = str(start + 2) if start + 2 < len(found) else ""
        return order_service_pb2.ListOrdersResponse(orders=page, next_page_token=token)

    async def ListTrades(self, request, context):
        found = self.exchange.accounts[account_of(context)].fills[::-1]
        start = int(request.page_token or "0")
        page = found[start : start + request.page_size]
        token = str(start + request.page_size) if start + request.page_size < len(found) else ""
        return order_service_pb2.ListTradesResponse(trades=page, next_page_token=token)

    async def OrderSession(self, request_iterator, context):
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

    async def StreamOrderEvents(self, request, context):
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

    async def ListMarkets(self, request, context):
        return market_service_pb2.ListMarketsResponse(markets=self.exchange.markets.values())

    async def GetMarket(self, request, context):
        if request.symbol not in self.exchange.markets:
            await refuse(context, "UNKNOWN_SYMBOL", "no such market", symbol=request.symbol)
        return self.exchange.markets[request.symbol]

    async def GetOrderBook(self, request, context):
        self.exchange.requests.append(request)
        if request.symbol not in self.exchange.markets:
            await refuse(context, "UNKNOWN_SYMBOL", "no such market", symbol=request.symbol)
        if request.as_of_sequence > self.exchange.sequence:
            await refuse(context, "SEQUENCE_IN_FUTURE", head_sequence=str(self.exchange.sequence))
        return self.exchange.book(request.symbol, request.depth or 50)

    async def ListMarketTrades(self, request, context):
        return market_service_pb2.ListMarketTradesResponse()

    async def StreamOrderBook(self, request, context):
        async for message in self._script(request, context):
            yield message

    async def StreamTrades(self, request, context):
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

    async def ListBalances(self, request, context):
        name = account_of(context)
        balances = [
            types_pb2.Balance(account=name, asset=asset, available=str(amount), held="0", total=str(amount))
            for (account, asset), amount in sorted(self.exchange.balances.items())
            if account == name
        ]
        return account_service_pb2.ListBalancesResponse(balances=balances)

    async def GetLimits(self, request, context):
        return account_service_pb2.Limits(
            account=account_of(context), tier="standard", orders_per_second=50, orders_burst=100, orders_left=97,
            max_open_orders=1_000, open_orders=3, sequence=self.exchange.sequence,
        )  # fmt: skip

    async def CreditAccount(self, request, context):
        if request.request_id not in self.exchange.credits:
            self.exchange.credits.add(request.request_id)
            self.exchange.balances[request.account, request.asset] += Decimal(request.amount)
        total = str(self.exchange.balances[request.account, request.asset])
        return types_pb2.Balance(account=request.account, asset=request.asset, available=total, held="0", total=total)

    async def StreamBalances(self, request, context):
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

    async def CreateAsset(self, request, context):
        if request.code in self.exchange.assets:
            await refuse(context, "ALREADY_EXISTS", "the asset exists")
        self.exchange.assets[request.code] = types_pb2.Asset(code=request.code, decimals=request.decimals)
        return self.exchange.assets[request.code]

    async def CreateMarket(self, request, context):
        if request.symbol in self.exchange.markets:
            await refuse(context, "ALREADY_EXISTS", "the market exists")
        return self.exchange.add_market(
            request.symbol,
            base_asset=request.base_asset,
            quote_asset=request.quote_asset,
            tick_size=request.tick_size,
            lot_size=request.lot_size,
        )

    async def ListBusyAccounts(self, request, context):
        """One account a page, whose numbers show the question."""
        last = bool(request.page_token)
        response = admin_service_pb2.ListBusyAccountsResponse(next_page_token="" if last else "second")
        response.accounts.add(
            account="second" if last else "first", order_count=request.more_than, cancel_count=request.window.seconds
        )
        response.seen.FromSeconds(40)
        return response

    async def SetAccountLimits(self, request, context):
        return admin_service_pb2.AccountLimits(account=request.account, max_open_orders=request.max_open_orders)

    async def HaltMarket(self, request, context):
        self.exchange.markets[request.symbol].mode = types_pb2.HALTED
        return self.exchange.markets[request.symbol]

    async def EnableCircuitBreaker(self, request, context):
        self.switches.circuit_breaker = True
        return self.switches

    async def CompareReplicas(self, request, context):
        self.exchange.requests.append(request)
        hashes = {(one.state_hash, one.book_hash) for one in self.exchange.replicas if one.state_hash}
        return admin_replicas_pb2.CompareReplicasResponse(
            sequence=1_234, identical=len(hashes) == 1, replicas=self.exchange.replicas
        )

    async def HandOverLeadership(self, request, context):
        self.exchange.requests.append(request)
        if not self.exchange.replicas:
            await refuse(context, "NOT_READY", "no follower is there to take leadership")
        return admin_replicas_pb2.HandOverLeadershipResponse(instance="fake-1", sequence=1_234)

    async def ActivateRules(self, request, context):
        self.exchange.requests.append(request)
        if request.rules_version > 2:
            await refuse(context, "RULES_NOT_SUPPORTED", instance="fake-1")
        return admin_replicas_pb2.ActivateRulesResponse(rules_version=request.rules_version, sequence=1_234)

    async def VerifyJournal(self, request, context):
        self.exchange.requests.append(request)
        if not self.exchange.verification:
            await refuse(context, "SEQUENCE_NOT_RETAINED", floor_sequence="7")
        for progress in self.exchange.verification:
            yield progress

    async def ValidateOrderBook(self, request, context):
        checks = [
            admin_service_pb2.InvariantCheck(name="book_not_crossed", holds=True, detail="1 < 2"),
            admin_service_pb2.InvariantCheck(name="money_conserved", holds=False, detail="one unit is missing"),
        ]
        return admin_service_pb2.ValidateOrderBookResponse(
            symbol=request.symbol, sequence=7, valid=False, checks=checks
        )


class Health(health_service_pb2_grpc.HealthServiceServicer):
    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange

    async def GetHealth(self, request, context):
        return health_service_pb2.Health(status="SERVING", instance="fake-1", role="LEADER", sequence=7)


def build(kind: Any, exchange: FakeExchange) -> Any:
    """A servicer of which not every method is written: the others answer UNIMPLEMENTED."""
    return kind(exchange)


class FakeServer:
    """Serves a FakeExchange; `kill` drops every connection, `start` serves again on the same port."""

    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange
        self.markets: Markets = build(Markets, exchange)
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Self:
        server = grpc.aio.server()
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(build(Orders, self.exchange), server)
        market_service_pb2_grpc.add_MarketServiceServicer_to_server(self.markets, server)
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(build(Accounts, self.exchange), server)
        admin_service_pb2_grpc.add_TradingAdminServiceServicer_to_server(build(Admin, self.exchange), server)
        health_service_pb2_grpc.add_HealthServiceServicer_to_server(build(Health, self.exchange), server)
        history: Any = FakeHistory()
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server(history, server)
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
