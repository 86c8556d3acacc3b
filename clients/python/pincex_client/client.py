"""`ExchangeClient`: one account's view of the exchange, over gRPC.

async with ExchangeClient("127.0.0.1:8080", account="demo") as exchange:
    order = await exchange.place_order("BTCUSD", "BUY", "1.0", "50000.00")
    print(order.status, order.open_quantity)
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    health_service_pb2,
    health_service_pb2_grpc,
    market_service_pb2,
    market_service_pb2_grpc,
    order_commands_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
)
from pincex_client import models, requests
from pincex_client.admin import AdminClient
from pincex_client.auth import AuthClient
from pincex_client.book import BookStream, BookStubs
from pincex_client.convert import from_wire
from pincex_client.credentials import Credentials, Fixed
from pincex_client.feeds import BalanceStream, OrderEventStream, TradeStream
from pincex_client.horizon import Horizon
from pincex_client.kyc import KycClient
from pincex_client.market_data import MarketData
from pincex_client.results import CommandResult
from pincex_client.session import OrderSession, SessionOptions
from pincex_client.settlement import Statements
from pincex_client.transport import Caller, RetryPolicy, Tls, is_https, open_channel
from pincex_client.wallet import Wallet

Amount = Decimal | int | str
Item = TypeVar("Item")
PAGE_SIZE = 500
MAX_BATCH_ORDERS = 100
# Seconds to wait for a book of the past.
PAST_DEADLINE = 60.0


class ExchangeClient:
    """Orders, markets and balances of one account.

    `target` is the public edge (or an engine itself), `ops_target` the ops listener for `admin`. `credentials` say who
    calls; `account` (development profile) and `token` are short for `credentials.Fixed`. `tls` says whom to trust at an
    `https://` target, and which certificate stands for the client at an mTLS listener.

    Every mutation carries an id, made here where the caller gives none, so that it may be repeated after a lost answer.
    Reads see the client's own writes on any replica: they carry the newest sequence that a write has returned.

    All methods raise `pincex_client.errors.ExchangeError` subclasses.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8080",
        *,
        ops_target: str | None = None,
        account: str | None = None,
        token: str | None = None,
        credentials: Credentials | None = None,
        policy: RetryPolicy | None = None,
        channel_options: Sequence[tuple[str, int]] = (),
        tls: Tls | None = None,
    ) -> None:
        if tls is not None and not any(is_https(one) for one in (target, ops_target or "")):
            raise ValueError(f"tls is given, and {target} is not https://")
        self.target = target
        self.account = account
        self.policy = policy or RetryPolicy()
        self.channel = open_channel(target, channel_options, tls)
        self.credentials = credentials if credentials is not None else Fixed(account=account, token=token)
        self.credentials.attach(self.channel)
        self._ops_target = ops_target
        self._ops_options = tuple(channel_options)
        self._tls = tls
        self._admin: AdminClient | None = None
        self._caller = Caller(self.credentials, self.policy)
        self._orders = order_service_pb2_grpc.OrderServiceStub(self.channel)
        self._markets = market_service_pb2_grpc.MarketServiceStub(self.channel)
        self._accounts = account_service_pb2_grpc.AccountServiceStub(self.channel)
        self._health = health_service_pb2_grpc.HealthServiceStub(self.channel)
        self._market_data = market_data_service_pb2_grpc.MarketDataServiceStub(self.channel)
        self._horizon = Horizon()
        self.last_sequence = 0

    async def __aenter__(self) -> Self:
        """The channels connect with their first call."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channels."""
        await self.close()

    async def close(self) -> None:
        """Close the channels; streams and sessions on them end."""
        await self.channel.close(grace=None)
        if self._admin is not None:
            await self._admin.close()

    @property
    def admin(self) -> AdminClient:
        """The operator's calls, on the ops listener."""
        if self._admin is None:
            if self._ops_target is None:
                raise ValueError("no ops_target: the operator's calls need the address of the ops listener")
            self._admin = AdminClient(
                self._ops_target,
                identity=self.credentials,
                policy=self.policy,
                channel_options=self._ops_options,
                tls=self._tls,
            )
        return self._admin

    @property
    def auth(self) -> AuthClient:
        """Logging in, keys, sessions."""
        return AuthClient(self.channel, self._caller)

    @property
    def statements(self) -> Statements:
        """What changed the account's balances, and the fees it paid."""
        return Statements(self.channel, self._caller)

    @property
    def market_data(self) -> MarketData:
        """Candles, tickers, and trades of any past."""
        return MarketData(self.channel, self._caller, self.credentials, self._stream_options)

    @property
    def wallet(self) -> Wallet:
        """Deposits, withdrawals and transfers."""
        return Wallet(self.channel, self._caller)

    @property
    def kyc(self) -> KycClient:
        """Who the user is, and what its tier allows."""
        return KycClient(self.channel, self._caller)

    # --- Orders -----------------------------------------------------------------------------------------------------

    async def place_order(
        self, symbol: str, side: str, quantity: Amount, price: Amount | None = None, **options: Any
    ) -> models.Order:
        """Place an order and return it as it stood right after it was matched; it is durable then.

        Options are those of `requests.place_order`: `order_type` (default LIMIT with a price, else MARKET),
        `time_in_force`, `post_only`, `stop_price`, `self_trade_prevention`, `client_order_id`, `expire_time`.
        """
        request = requests.place_order(symbol, side, quantity, price, **options)
        requests.stamp(request)
        return self._wrote(await self._caller.call(self._orders.PlaceOrder, request, repeatable=True))

    async def place_orders(self, orders: Iterable[order_commands_pb2.PlaceOrderRequest]) -> tuple[CommandResult, ...]:
        """Place up to 100 orders (built by `requests.place_order`) in one call, each judged on its own."""
        batch = list(orders)
        if not 1 <= len(batch) <= MAX_BATCH_ORDERS:
            raise ValueError(f"1 to {MAX_BATCH_ORDERS} orders in one batch, not {len(batch)}")
        for order in batch:
            requests.stamp(order)
        request = order_service_pb2.BatchPlaceOrdersRequest(orders=batch)
        answer = await self._caller.call(self._orders.BatchPlaceOrders, request, repeatable=True)
        results = tuple(CommandResult(result) for result in answer.results)
        self._saw(max((result.sequence for result in results), default=0))
        return results

    async def get_order(
        self, order_id: str = "", *, client_order_id: str = "", min_sequence: int | None = None
    ) -> models.Order:
        """Read one order by the exchange's id or by the client's."""
        wanted = self._min(min_sequence)
        if client_order_id and not order_id:
            by_client = order_service_pb2.GetOrderByClientOrderIdRequest(
                client_order_id=client_order_id, min_sequence=wanted
            )
            answer = await self._caller.call(self._orders.GetOrderByClientOrderId, by_client, repeatable=True)
        else:
            request = order_service_pb2.GetOrderRequest(order_id=order_id, min_sequence=wanted)
            answer = await self._caller.call(self._orders.GetOrder, request, repeatable=True)
        return from_wire(models.Order, answer)

    async def iter_orders(
        self, symbol: str = "", *, statuses: Sequence[str] = (), side: str = "", min_sequence: int | None = None
    ) -> AsyncIterator[models.Order]:
        """Orders, newest first, page after page; open ones where `statuses` is empty."""
        request = order_service_pb2.ListOrdersRequest(
            symbol=symbol,
            statuses=[requests.enum_value("OrderStatus", status) for status in statuses],
            page_size=PAGE_SIZE,
            min_sequence=self._min(min_sequence),
        )
        if side:
            request.side = requests.side_value(side)
        while True:
            page = await self._caller.call(self._orders.ListOrders, request, repeatable=True)
            for order in page.orders:
                yield from_wire(models.Order, order)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_orders(self, symbol: str = "", *, limit: int | None = None, **filters: Any) -> list[models.Order]:
        """As `iter_orders`, gathered: all, or the newest `limit`."""
        return await _gather(self.iter_orders(symbol, **filters), limit)

    async def cancel_order(
        self, order_id: str = "", *, client_order_id: str = "", request_id: str = ""
    ) -> models.Order:
        """Cancel an open order, named by one of the two ids; returns it as cancelled."""
        request = requests.cancel_order(order_id, client_order_id=client_order_id, request_id=request_id)
        requests.stamp(request)
        return self._wrote(await self._caller.call(self._orders.CancelOrder, request, repeatable=True))

    async def replace_order(
        self, order_id: str = "", *, price: Amount, quantity: Amount, **options: Any
    ) -> models.Order:
        """Give an open order a new price and open quantity; it may trade at once.

        It loses its priority, but not where rules 2 hold, the price stays and the quantity does not grow.

        Options: `client_order_id` instead of `order_id`, `expected_filled_quantity`, `request_id`.
        """
        request = requests.replace_order(order_id, price=price, quantity=quantity, **options)
        requests.stamp(request)
        return self._wrote(await self._caller.call(self._orders.ReplaceOrder, request, repeatable=True))

    async def reduce_order(self, order_id: str = "", *, quantity: Amount, **options: Any) -> models.Order:
        """Take `quantity` off an open order; it keeps price and priority.

        Options: `client_order_id` instead of `order_id`, `request_id`.
        """
        request = requests.reduce_order(order_id, quantity=quantity, **options)
        requests.stamp(request)
        return self._wrote(await self._caller.call(self._orders.ReduceOrder, request, repeatable=True))

    async def cancel_all_orders(self, symbol: str = "", *, request_id: str = "") -> models.CancelledOrders:
        """Cancel all open orders of the account, or those of one symbol."""
        request = requests.cancel_all_orders(symbol, request_id=request_id)
        requests.stamp(request)
        answer = await self._caller.call(self._orders.CancelAllOrders, request, repeatable=True)
        self._saw(answer.sequence)
        return from_wire(models.CancelledOrders, answer)

    async def iter_fills(
        self, symbol: str = "", *, order_id: str = "", min_sequence: int | None = None
    ) -> AsyncIterator[models.Fill]:
        """The account's own executions, newest first, page after page."""
        request = order_service_pb2.ListTradesRequest(
            symbol=symbol, order_id=order_id, page_size=PAGE_SIZE, min_sequence=self._min(min_sequence)
        )
        while True:
            page = await self._caller.call(self._orders.ListTrades, request, repeatable=True)
            for fill in page.trades:
                yield from_wire(models.Fill, fill)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_fills(self, symbol: str = "", *, limit: int | None = None, **filters: Any) -> list[models.Fill]:
        """As `iter_fills`, gathered: all, or the newest `limit`."""
        return await _gather(self.iter_fills(symbol, **filters), limit)

    def session(self, session_id: str = "", **options: Any) -> OrderSession:
        """An order session: numbered commands in batches, which outlives connections. See `SessionOptions`."""
        return OrderSession(self._orders, self.credentials, session_id, SessionOptions(**options))

    # --- Markets ----------------------------------------------------------------------------------------------------

    async def list_markets(self) -> list[models.Market]:
        """All markets, by symbol."""
        request = market_service_pb2.ListMarketsRequest(page_size=PAGE_SIZE)
        markets: list[models.Market] = []
        while True:
            page = await self._caller.call(self._markets.ListMarkets, request, repeatable=True)
            markets += [from_wire(models.Market, market) for market in page.markets]
            if not page.next_page_token:
                return markets
            request.page_token = page.next_page_token

    async def get_market(self, symbol: str) -> models.Market:
        """One market."""
        request = market_service_pb2.GetMarketRequest(symbol=symbol)
        return from_wire(models.Market, await self._caller.call(self._markets.GetMarket, request, repeatable=True))

    async def get_order_book(
        self, symbol: str, *, depth: int = 50, min_sequence: int | None = None, as_of_sequence: int | None = None
    ) -> models.Book:
        """The aggregated book, `depth` levels (1 to 5000) a side.

        With `as_of_sequence` the book as it was after that sequence: the exchange builds it from its journal, which may
        take seconds, so it is asked for up to PAST_DEADLINE.
        """
        if as_of_sequence is not None:
            return await self._past_book(symbol, depth, min_sequence or 0, as_of_sequence)
        request = market_service_pb2.GetOrderBookRequest(
            symbol=symbol, depth=depth, min_sequence=self._min(min_sequence)
        )
        return from_wire(models.Book, await self._caller.call(self._markets.GetOrderBook, request, repeatable=True))

    async def _past_book(self, symbol: str, depth: int, min_sequence: int, sequence: int) -> models.Book:
        if sequence < 1:
            raise ValueError("as_of_sequence starts at 1")
        request = market_service_pb2.GetOrderBookRequest(
            symbol=symbol, depth=depth, min_sequence=min_sequence, as_of_sequence=sequence
        )
        # One attempt may end before the book is built; it goes on being built, and the next attempt finds it.
        answer = await self._caller.call(
            self._markets.GetOrderBook, request, repeatable=True, deadline=max(PAST_DEADLINE, self.policy.deadline)
        )
        return from_wire(models.Book, answer)

    async def list_market_trades(self, symbol: str, *, limit: int = 100) -> list[models.Trade]:
        """The latest public trades, newest first."""
        request = market_service_pb2.ListMarketTradesRequest(symbol=symbol, page_size=min(limit, 1_000))
        trades: list[models.Trade] = []
        while True:
            page = await self._caller.call(self._markets.ListMarketTrades, request, repeatable=True)
            trades += [from_wire(models.Trade, trade) for trade in page.trades]
            if not page.next_page_token or len(trades) >= limit:
                return trades[:limit]
            request.page_token = page.next_page_token

    # --- Balances and health ----------------------------------------------------------------------------------------

    async def list_balances(self, *, min_sequence: int | None = None) -> list[models.Balance]:
        """All assets that the account has ever held, by code."""
        request = account_service_pb2.ListBalancesRequest(page_size=PAGE_SIZE, min_sequence=self._min(min_sequence))
        balances: list[models.Balance] = []
        while True:
            page = await self._caller.call(self._accounts.ListBalances, request, repeatable=True)
            balances += [from_wire(models.Balance, balance) for balance in page.balances]
            if not page.next_page_token:
                return balances
            request.page_token = page.next_page_token

    async def get_limits(self) -> models.Limits:
        """What this account, and the key that calls, may do, and how much of it is in use."""
        request = account_service_pb2.GetLimitsRequest()
        return from_wire(models.Limits, await self._caller.call(self._accounts.GetLimits, request, repeatable=True))

    async def health(self) -> models.Health:
        """How the instance that answers is."""
        request = health_service_pb2.GetHealthRequest()
        return from_wire(models.Health, await self._caller.call(self._health.GetHealth, request, repeatable=True))

    # --- Streams ----------------------------------------------------------------------------------------------------

    def book_stream(self, symbol: str, *, depth: int = 0, **options: Any) -> BookStream:
        """A live, verified book: `async for book in stream`. Depth 10, 50, 200, or 0 for all levels.

        `interval_ms` (100, 250, 1000) conflates; `tell_stale` ends a wait, too, when the book becomes stale.
        """
        stubs: Any = BookStubs(self._markets, self._market_data)
        return BookStream(stubs, self.credentials, symbol, depth, **self._stream_options(), **options)

    def order_events(self, **options: Any) -> OrderEventStream:
        """The account's own events: a snapshot of open orders, then each change and fill."""
        return OrderEventStream(self._orders, self.credentials, **self._stream_options(), **options)

    def trade_stream(self, symbol: str, **options: Any) -> TradeStream:
        """The public trades of a market, the latest first batch included."""
        return TradeStream(self._markets, self.credentials, symbol, **self._stream_options(), **options)

    def balance_stream(self, **options: Any) -> BalanceStream:
        """The account's balances as they change."""
        return BalanceStream(self._accounts, self.credentials, **self._stream_options(), **options)

    def _stream_options(self) -> dict[str, Any]:
        # What one stream or answer has seen, no other one may lie behind for long.
        return {"horizon": self._horizon}

    # --- Read your writes -------------------------------------------------------------------------------------------

    def _wrote(self, answer: Any) -> models.Order:
        self._saw(answer.sequence)
        return from_wire(models.Order, answer)

    def _saw(self, sequence: int) -> None:
        self.last_sequence = max(self.last_sequence, sequence)
        self._horizon.saw(sequence)

    def _min(self, min_sequence: int | None) -> int:
        return self.last_sequence if min_sequence is None else min_sequence


async def _gather(items: AsyncIterator[Item], limit: int | None) -> list[Item]:
    gathered: list[Item] = []
    async for item in items:
        if limit is not None and len(gathered) >= limit:
            break
        gathered.append(item)
    return gathered
