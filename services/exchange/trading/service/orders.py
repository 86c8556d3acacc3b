"""OrderService: orders of the calling account."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Final

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.request import request_context
from exchange.trading.core.commands import C_REQUEST_ID, Command
from exchange.trading.core.events import R_COUNT, R_ORDER_ID, R_SEQUENCE, Result
from exchange.trading.core.model import Account, Order
from exchange.trading.core.orders import find_order
from exchange.trading.feeds.tape import TradeTape
from exchange.trading.service import requests
from exchange.trading.service.admittance import Admittance
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import fill_message, order_message, placed_message
from exchange.trading.service.order_lookup import units_of_order
from exchange.trading.service.order_stream import OrderStreams
from exchange.trading.service.results import command_result, refused_result
from exchange.trading.service.session import Sessions
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import (
    order_commands_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
    order_session_pb2,
    types_pb2,
)

MAX_BATCH: Final = 100
OPEN_STATUSES: Final = frozenset({types_pb2.PENDING, types_pb2.PARTIAL})


class OrderService(order_service_pb2_grpc.OrderServiceServicer):
    """See `proto/pincex/trading/v1/order_service.proto`."""

    def __init__(
        self, desk: Desk, tape: TradeTape, sessions: Sessions, streams: OrderStreams, admittance: Admittance
    ) -> None:
        self._desk = desk
        self._admittance = admittance
        self._tape = tape
        self._sessions = sessions
        self._streams = streams

    # --- changing ---

    async def PlaceOrder(self, request: order_commands_pb2.PlaceOrderRequest, context: Any) -> types_pb2.Order:
        """Place one order."""
        desk = self._desk
        market, units = await desk.find(lambda: desk.market(request.symbol))
        principal = request_context(context).principal
        command = requests.place(request, units, principal.account, sender=self._admittance.sender(principal))
        self._admittance.count(principal, command)
        return placed_message(await desk.execute(command), units, market.default_stp)

    async def BatchPlaceOrders(
        self, request: order_service_pb2.BatchPlaceOrdersRequest, context: Any
    ) -> order_service_pb2.BatchPlaceOrdersResponse:
        """Place several orders, each on its own."""
        if not 1 <= len(request.orders) <= MAX_BATCH:
            raise ServiceError(ErrorReason.BATCH_TOO_LARGE, metadata={"limit": MAX_BATCH, "field": "orders"})
        desk = self._desk
        principal = request_context(context).principal
        account = principal.account
        slots: list[Command | ServiceError] = []
        for order in request.orders:
            try:
                symbol = order.symbol
                _, units = await desk.find(lambda symbol=symbol: desk.market(symbol))  # type: ignore[misc]
                command = requests.place(order, units, account, sender=self._admittance.sender(principal))
                self._admittance.count(principal, command)
                slots.append(command)
            except ServiceError as error:
                slots.append(error)
        commands = [slot for slot in slots if not isinstance(slot, ServiceError)]
        results = iter(await desk.submit(commands) if commands else [])
        response = order_service_pb2.BatchPlaceOrdersResponse()
        for slot in slots:
            if isinstance(slot, ServiceError):
                response.results.append(refused_result(slot))
            else:
                command_result(desk, next(results), slot, response.results.add())
        return response

    async def CancelOrder(self, request: order_commands_pb2.CancelOrderRequest, context: Any) -> types_pb2.Order:
        """Cancel one order."""
        command = requests.cancel(request, request_context(context).principal.account)
        return await self._answer(await self._desk.execute(command))

    async def ReplaceOrder(self, request: order_commands_pb2.ReplaceOrderRequest, context: Any) -> types_pb2.Order:
        """Give an order a new price and open quantity."""
        principal = request_context(context).principal
        account = principal.account
        units = await self._desk.find(lambda: units_of_order(self._desk, account, request))
        command = requests.replace(request, units, account)
        self._admittance.count(principal, command)
        return await self._answer(await self._desk.execute(command), units)

    async def ReduceOrder(self, request: order_commands_pb2.ReduceOrderRequest, context: Any) -> types_pb2.Order:
        """Take quantity off an order."""
        account = request_context(context).principal.account
        units = await self._desk.find(lambda: units_of_order(self._desk, account, request))
        return await self._answer(await self._desk.execute(requests.reduce(request, units, account)), units)

    async def CancelAllOrders(
        self, request: order_commands_pb2.CancelAllOrdersRequest, context: Any
    ) -> order_service_pb2.CancelAllOrdersResponse:
        """Cancel the account's open orders."""
        desk = self._desk
        market = (await desk.find(lambda: desk.market(request.symbol)))[0].index if request.symbol else -1
        account = request_context(context).principal.account
        result = await self._desk.execute(requests.cancel_all(request, market, account))
        return order_service_pb2.CancelAllOrdersResponse(cancelled_count=result[R_COUNT], sequence=result[R_SEQUENCE])

    async def _answer(self, result: Result, units: MarketUnits | None = None) -> types_pb2.Order:
        """The order as it stood when the result was made."""
        order = self._desk.state.orders.get(result[R_ORDER_ID])
        if order is None:
            raise ServiceError(
                ErrorReason.ORDER_NOT_FOUND,
                "it was done, but ended so long ago that the order is no longer kept",
                metadata={"order_id": result[R_ORDER_ID]},
            )
        return order_message(order, units or self._desk.units(order.market.index), result)

    # --- reading ---

    async def GetOrder(self, request: order_service_pb2.GetOrderRequest, context: Any) -> types_pb2.Order:
        """Read one order."""
        number = requests.order_number(request.order_id)
        # The id of an order is the sequence of its acceptance.
        await self._desk.reach(request.min_sequence, number)
        return await self._read(request_context(context).principal.account, number, "")

    async def GetOrderByClientOrderId(
        self, request: order_service_pb2.GetOrderByClientOrderIdRequest, context: Any
    ) -> types_pb2.Order:
        """Read one order by its client's id."""
        if not request.client_order_id:
            raise requests.refuse(ErrorReason.FIELD_REQUIRED, "client_order_id")
        await self._desk.reach(request.min_sequence)
        return await self._read(request_context(context).principal.account, 0, request.client_order_id)

    async def _read(self, account: str, number: int, client_order_id: str) -> types_pb2.Order:
        holder = self._desk.account(account)
        order = find_order(self._desk.state, holder, number, client_order_id) if holder is not None else None
        message = order_message(order, self._desk.units(order.market.index)) if order is not None else None
        await self._desk.settle()
        if message is None:
            key = "order_id" if number else "client_order_id"
            raise ServiceError(ErrorReason.ORDER_NOT_FOUND, metadata={key: number or client_order_id})
        return message

    async def ListOrders(
        self, request: order_service_pb2.ListOrdersRequest, context: Any
    ) -> order_service_pb2.ListOrdersResponse:
        """List orders, newest first."""
        size = paging.page_size(request.page_size)
        requests.check_filter(request.statuses, types_pb2.CANCELLED, "statuses")
        requests.check_filter([request.side] if request.side else [], types_pb2.SELL, "side")
        desk = self._desk
        await desk.reach(request.min_sequence)
        symbol = desk.market(request.symbol)[0].symbol if request.symbol else ""
        statuses = frozenset(request.statuses) or OPEN_STATUSES
        account = request_context(context).principal.account
        filters = (account, symbol, sorted(statuses), request.side)
        before = paging.number_position(request.page_token, *filters)
        response = order_service_pb2.ListOrdersResponse(sequence=desk.state.sequence)
        holder = desk.account(account)
        if holder is not None:
            found = (
                order
                for order in _newest_first(holder, statuses)
                if (not before or order.order_id < before)
                and order.status in statuses
                and (not symbol or order.market.symbol == symbol)
                and (not request.side or order.side == request.side)
            )
            page = list(islice(found, size + 1))
            for order in page[:size]:
                response.orders.append(order_message(order, desk.units(order.market.index)))
            if len(page) > size:
                response.next_page_token = paging.make_token(str(page[size - 1].order_id), *filters)
        await desk.settle()
        return response

    async def ListTrades(
        self, request: order_service_pb2.ListTradesRequest, context: Any
    ) -> order_service_pb2.ListTradesResponse:
        """The account's own executions, newest first."""
        size = paging.page_size(request.page_size)
        desk = self._desk
        await desk.reach(request.min_sequence)
        market = desk.market(request.symbol)[0].index if request.symbol else -1
        order_id = requests.order_number(request.order_id) if request.order_id else 0
        account = request_context(context).principal.account
        filters = (account, market, order_id)
        before = paging.number_position(request.page_token, *filters)
        page, following = self._tape.own_trades(account, market, order_id, before, size)
        response = order_service_pb2.ListTradesResponse(sequence=desk.seat.committed_sequence)
        for entry, maker in page:
            fill = fill_message(
                entry.event,
                desk.units(entry.market),
                entry.sequence,
                entry.time_ns,
                maker=maker,
                client_order_id=self._client_order_id(entry.order_of(maker)),
            )
            response.trades.append(fill)
        if following:
            response.next_page_token = paging.make_token(str(following), *filters)
        return response

    def _client_order_id(self, order_id: int) -> str:
        order = self._desk.state.orders.get(order_id)
        return order.command[C_REQUEST_ID] if order is not None else ""

    # --- streams ---

    def OrderSession(
        self, request_iterator: AsyncIterator[order_session_pb2.OrderSessionRequest], context: Any
    ) -> AsyncIterator[Any]:
        """Batches of commands in, batches of results out."""
        return self._sessions.serve(request_iterator, request_context(context).principal)

    def StreamOrderEvents(
        self, request: order_service_pb2.StreamOrderEventsRequest, context: Any
    ) -> AsyncIterator[Any]:
        """The account's own events."""
        return self._streams.serve(request.resume_token, request_context(context).principal.account)


def _newest_first(account: Account, statuses: frozenset[int]) -> Iterator[Order]:
    """The account's orders by falling id: open ones, and ended ones where they are asked for."""
    if statuses <= OPEN_STATUSES:
        return reversed(account.orders.values())
    return iter(sorted([*account.orders.values(), *account.finished], key=lambda order: -order.order_id))
