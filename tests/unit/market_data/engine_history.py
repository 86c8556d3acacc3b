"""What an engine does and says: its core, the frames of its event stream, and snapshots, as market data gets them."""

from __future__ import annotations

from typing import Any, cast

from exchange.market_data import events as ev
from exchange.market_data.books import Books, Frame
from exchange.market_data.service.intake import Decoder, SnapshotReader
from exchange.runtime.feeds.tokens import Position
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import BUY, GTC, IOC, LIMIT, SELL, STOP, STOP_LIMIT
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import R_REASON
from exchange.trading.service.event_messages import EventTranslator
from exchange.trading.service.events import EventService, grouped
from exchange.trading.service.units import MarketUnits
from pincex.journal.v1 import event_service_pb2 as pb

ACCOUNTS = ("a", "b", "c")
INCARNATION = "first"

Wish = tuple[int, int, int, int, int, int]
"""(what, account, side, price, lots, which of the own orders)."""


def frame_hash(sequence: int) -> bytes:
    return sequence.to_bytes(8) * 4


def token(sequence: int, stream: str = "") -> str:
    return Position(INCARNATION, 0, sequence, -1, frame_hash(sequence)[:8].hex(), stream).token()


class Shown:
    """As much of the engine's desk as its event service needs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.state = engine.state

    def units(self, index: int) -> MarketUnits:
        return MarketUnits(self.state, self.state.markets[index])


class EngineHistory:
    """An engine with the markets XY and XZ, and what it has said since. `rules` are those that hold."""

    def __init__(self, *, rules: int = 3) -> None:
        self.engine = Engine()
        self._shown = Shown(self.engine)
        self._translator = EventTranslator(cast("Any", self._shown))
        self._open: list[tuple[int, list[Any]]] = []
        self.decoder = Decoder()
        definition = ("XY", 0, 1, 25, 2, 100, 1, 0, 0, 1_000, 2_000, 0, 500_000, 2, 0)
        setup = [cmd.create_asset("ops", "X", 3), cmd.create_asset("ops", "Y", 6)]
        setup += [cmd.activate_rules("ops", version) for version in range(2, rules + 1)]
        setup += [cmd.create_market("ops", definition), cmd.create_market("ops", ("XZ", *definition[1:]))]
        setup += [cmd.credit(name, asset, 10**15, request_id=f"{name}{asset}") for name in ACCOUNTS for asset in (0, 1)]
        for command in setup:
            self.do(command)
            assert self.engine.result[R_REASON] == 0
        self.frame()

    @property
    def sequence(self) -> int:
        sequence: int = self.engine.state.sequence
        return sequence

    def do(self, command: cmd.Command) -> None:
        """Apply a command, into the frame that is open."""
        state = self.engine.state
        events = self.engine.apply(state.sequence + 1, state.time_ns + 1_000_000, command)
        self._open.append((state.sequence, list(events)))

    def wish(self, wish: Wish) -> None:
        """Something that a client might want."""
        what, account_number, side_number, price, lots, pick = wish
        account = ACCOUNTS[account_number % len(ACCOUNTS)]
        own = list(self.engine.state.accounts[account].orders)
        side = (BUY, SELL)[side_number % 2]
        order_id = own[pick % len(own)] if own else 0
        market = 0 if pick % 4 else 1
        if own and what == 0:
            self.do(cmd.cancel(account, order_id=order_id))
        elif own and what == 1:
            self.do(cmd.replace(account, lots, price, order_id=order_id))
        elif own and what == 2:
            order = self.engine.state.orders[order_id]
            self.do(cmd.replace(account, max(1, order.lots_open + lots % 3 - 1), order.price, order_id=order_id))
        elif own and what == 3:
            self.do(cmd.reduce(account, 1 + lots % 5, order_id=order_id))
        elif what == 4:
            self.do(cmd.place(account, market, side, STOP, lots, 0, tif=IOC, stop=price, stp=pick % 5))
        elif what == 5:
            self.do(cmd.place(account, market, side, STOP_LIMIT, lots, price, tif=GTC, stop=price, stp=pick % 5))
        elif what == 6:
            self.do(cmd.hash_book(market))
        elif what == 7 and not pick % 3:
            self.do(cmd.cancel_all(account))
        else:
            tif = IOC if what == 8 else GTC
            self.do(cmd.place(account, market, side, LIMIT, lots, price, tif=tif, stp=pick % 5))

    def frame(self) -> pb.EventBatch:
        """Close the frame that is open."""
        opened, self._open = self._open, []
        first, last = opened[0][0], opened[-1][0]
        batch = pb.EventBatch(
            first_sequence=first,
            last_sequence=last,
            prev_sequence=first - 1,
            resume_token=token(last),
            frame_hash=frame_hash(last),
            head_sequence=last,
        )
        for sequence, events in opened:
            for index, event in enumerate(events):
                self._translator.fill(batch.events.add(), event, sequence, index, 1_700_000_000_000_000_000 + sequence)
        return batch

    def batch(self) -> ev.Batch:
        """Close the frame, as market data decodes it."""
        return self.decoder.batch(self.frame())

    def snapshot(self) -> ev.Snapshot:
        """At the end of the last frame."""
        service = EventService(cast("Any", self._shown), cast("Any", None), cast("Any", None))
        head, items = service._taken()
        head.resume_token = token(head.sequence)
        reader = SnapshotReader()
        for item in (pb.SnapshotItem(head=head), *grouped(items)):
            reader.add(item)
        self.decoder.rules_version = reader.rules_version
        return reader.finish({})


class Kept:
    """A listener that keeps the frames it was told of."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.starts: list[bool] = []

    def start_over(self, *, same_history: bool) -> None:
        self.starts.append(same_history)

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)


def assert_equal_books(history: EngineHistory, books: Books) -> None:
    """Every order of the engine's books in its place, here too."""
    for market in history.engine.state.markets:
        book = books.markets[market.symbol].book
        assert book.book_hash() == history.engine.book_hash(market.symbol), market.symbol
        for here, there in ((book.bids, market.bids), (book.asks, market.asks)):
            levels = {price: [level.lots, level.count] for price, level in there.levels.items()}
            assert here.levels == levels
            assert here.keys == sorted(price * here.sign for price in levels)
