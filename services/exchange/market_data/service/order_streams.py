"""StreamBookOrders: books order by order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.market_data.book import MOVED
from exchange.market_data.service.feeds import Feed, FeedSet
from exchange.runtime.errors import ErrorReason
from pincex.marketdata.v1 import market_data_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from exchange.market_data.book import OrderBook, RestingOrder
    from exchange.market_data.books import Books, Frame
    from exchange.market_data.service.feeds import Counts
    from exchange.market_data.service.places import Places


class _OrderFeed(Feed):
    """One market's. Each message has symbol and checksum too."""

    def __init__(self, books: Books, symbol: str, places: Places, count: Callable[[], None]) -> None:
        self._books = books
        self._symbol = symbol
        self._checksum = 0
        super().__init__(places.of(f"orders:{symbol}"), books.sequence, books.frame_hash, self._message, count)
        self.note()

    @property
    def book(self) -> OrderBook:
        """The one in use."""
        return self._books.markets[self._symbol].book

    def note(self) -> None:
        """The book has changed, and a message will say so."""
        book = self.book
        self._checksum = book.checksum(book.prices.text, book.quantities.text)

    def _message(self, **fields: object) -> pb.BookOrdersUpdate:
        return pb.BookOrdersUpdate(symbol=self._symbol, checksum=self._checksum, **fields)  # type: ignore[arg-type]

    def snapshot(self) -> pb.BookOrdersUpdate:
        """All orders."""
        update = self._message()
        update.snapshot.SetInParent()
        self._add(update.snapshot, self.book.in_priority())
        return update

    def delta(self, touched: list[tuple[RestingOrder, int]]) -> pb.BookOrdersUpdate:
        """Orders that changed."""
        update = self._message()
        self._add(update.delta, (order for order, _ in touched))
        update.delta.moved_to_back.extend(str(order.order_id) for order, how in touched if how == MOVED)
        return update

    def _add(self, target: pb.BookOrders, orders: Iterable[RestingOrder]) -> None:
        price_text, quantity_text = self.book.prices.text, self.book.quantities.text
        for order in orders:
            target.orders.add(
                order_id=str(order.order_id),
                side=order.side,
                price=price_text(order.price),
                quantity=quantity_text(order.lots),
            )


class OrderStreams(FeedSet[str, _OrderFeed]):
    """All of them; a listener of the books."""

    def __init__(self, books: Books, places: Places, counts: Counts) -> None:
        super().__init__("book-orders", counts)
        self._books = books
        self._places = places

    def start_over(self, *, same_history: bool) -> None:
        """See `books.Listener`."""
        books = self._books
        for symbol, feed in list(self._feeds.items()):
            if not same_history or symbol not in books.markets:
                feed.end(ErrorReason.NOT_READY)
                del self._feeds[symbol]
                continue
            feed.note()
            feed.publish(feed.snapshot(), books.sequence, books.frame_hash, snapshot=True)

    def frame(self, frame: Frame) -> None:
        """See `books.Listener`."""
        batch = frame.batch
        for symbol in frame.books:
            touched = self._books.markets[symbol].book.take_touched()
            feed = self._feeds.get(symbol)
            if feed is not None and touched:
                feed.note()
                feed.publish(feed.delta(touched), batch.last_sequence, batch.frame_hash)

    async def serve(self, symbol: str, resume_token: str) -> AsyncIterator[bytes]:
        """One subscriber's stream, encoded."""
        canonical = self._books.market(symbol).symbol
        tokens = self._places.of(f"orders:{canonical}")
        place = await self._places.read(tokens, resume_token) if resume_token else None
        self._books.market(canonical)
        feed = self._feeds.get(canonical)
        if feed is None:
            feed = self._feeds[canonical] = _OrderFeed(self._books, canonical, self._places, self._count)
        feed.idle = 0
        position = feed.position_of(place)
        if position is None:
            position = feed.channel.end
            yield feed.first(feed.snapshot())
        async for message in feed.follow(position, self._slow):
            yield message
