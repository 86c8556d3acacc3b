"""The account's own events, public trades, and balances as resumable feeds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pincex.trading.v1 import account_service_pb2, market_service_pb2, order_service_pb2
from pincex_client.convert import from_wire
from pincex_client.models import Balance, Fill, Order, Trade
from pincex_client.streams import ResumableStream
from pincex_client.transport import Identity, Metadata

if TYPE_CHECKING:
    from pincex.trading.v1.account_service_pb2_grpc import AccountServiceAsyncStub
    from pincex.trading.v1.market_service_pb2_grpc import MarketServiceAsyncStub
    from pincex.trading.v1.order_service_pb2_grpc import OrderServiceAsyncStub


@dataclass(frozen=True, slots=True)
class OrdersSnapshot:
    """All open orders at `sequence`; what the account did before is not told again."""

    orders: tuple[Order, ...]
    sequence: int


OrderUpdate = OrdersSnapshot | Order | Fill


class OrderEventStream(ResumableStream[OrderUpdate]):
    """The account's own events: `OrdersSnapshot` first, then an `Order` for each change and a `Fill` for each trade.

    After an outage too long to be bridged a new `OrdersSnapshot` comes; `resets` and `snapshots` count. With
    `fills_only` the orders are left out, which costs a busy account two thirds less.
    """

    def __init__(
        self, stub: "OrderServiceAsyncStub", identity: Identity, *, fills_only: bool = False, **options: Any
    ) -> None:
        super().__init__(identity, **options)
        self.snapshots = 0
        self._fills_only = fills_only
        self._stub = stub
        self._parts: list[Order] = []

    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        self._parts.clear()
        request = order_service_pb2.StreamOrderEventsRequest(resume_token=resume_token)
        return self._stub.StreamOrderEvents(request, metadata=metadata)

    def _apply(self, kind: str, message: Any) -> Iterable[OrderUpdate]:
        match kind:
            case "snapshot":
                self._parts += [from_wire(Order, order) for order in message.snapshot.orders]
                if not message.snapshot.complete:
                    return ()
                orders = tuple(self._parts)
                self._parts.clear()
                self.snapshots += 1
                return (OrdersSnapshot(orders, message.sequence),)
            case "order":
                return () if self._fills_only else (from_wire(Order, message.order),)
            case "fill":
                return (from_wire(Fill, message.fill),)
        return ()

    def _discard(self, *, history_changed: bool) -> None:
        del history_changed
        self._parts.clear()


class TradeStream(ResumableStream[Trade]):
    """Public trades in order, each once: what a fresh snapshot repeats is left out.

    `missed` counts the outages after which trades may be missing: a fresh snapshot that does not reach back to the last trade.
    """

    def __init__(self, stub: "MarketServiceAsyncStub", identity: Identity, symbol: str, **options: Any) -> None:
        super().__init__(identity, **options)
        self.symbol = symbol
        self._stub = stub
        self._newest = (0, 0)
        self.missed = 0

    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        request = market_service_pb2.StreamTradesRequest(symbol=self.symbol, resume_token=resume_token)
        return self._stub.StreamTrades(request, metadata=metadata)

    def _apply(self, kind: str, message: Any) -> Iterable[Trade]:
        batch = message.snapshot if kind == "snapshot" else message.trades
        if kind == "snapshot" and self._newest > (0, 0) and batch.trades:
            self.missed += trade_place(batch.trades[0].trade_id) > self._newest
        fresh: list[Trade] = []
        for trade in batch.trades:
            place = trade_place(trade.trade_id)
            if place > self._newest:
                self._newest = place
                fresh.append(from_wire(Trade, trade))
        return fresh

    def _discard(self, *, history_changed: bool) -> None:
        if history_changed:
            self.missed += self._newest > (0, 0)
            self._newest = (0, 0)


def trade_place(trade_id: str) -> tuple[int, int]:
    """Order of a trade id `<sequence>-<index>` in the history of the exchange."""
    sequence, _, index = trade_id.partition("-")
    return int(sequence), int(index or "0")


@dataclass(frozen=True, slots=True)
class BalancesChanged:
    """Balances that changed, or all of them where `is_snapshot`."""

    balances: tuple[Balance, ...]
    sequence: int
    is_snapshot: bool


class BalanceStream(ResumableStream[BalancesChanged]):
    """The account's balances: `balances` holds the newest of each asset."""

    def __init__(self, stub: "AccountServiceAsyncStub", identity: Identity, **options: Any) -> None:
        super().__init__(identity, **options)
        self.balances: dict[str, Balance] = {}
        self._stub = stub

    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        del resume_token  # This stream resumes with a fresh snapshot.
        return self._stub.StreamBalances(account_service_pb2.StreamBalancesRequest(), metadata=metadata)

    def _apply(self, kind: str, message: Any) -> Iterable[BalancesChanged]:
        is_snapshot = kind == "snapshot"
        batch = message.snapshot if is_snapshot else message.changed
        if is_snapshot:
            self.balances.clear()
        changed = tuple(from_wire(Balance, balance) for balance in batch.balances)
        self.balances.update((balance.asset, balance) for balance in changed)
        return (BalancesChanged(changed, message.sequence, is_snapshot),)

    def _discard(self, *, history_changed: bool) -> None:
        del history_changed
        self.balances.clear()
