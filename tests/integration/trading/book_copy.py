"""What a client keeps of a book stream, written from the contract alone."""

from __future__ import annotations

from zlib import crc32

from pincex.trading.v1 import market_service_pb2 as pb


class BookCopy:
    """Applies messages and checks every promise of the contract on the way."""

    def __init__(self) -> None:
        self.bids: dict[str, tuple[str, int]] = {}
        self.asks: dict[str, tuple[str, int]] = {}
        self.mode = 0
        self.sequence = 0
        self.token = ""
        self.snapshots = 0

    def apply(self, update: pb.OrderBookUpdate) -> None:
        """One message; fails for a gap or a wrong checksum."""
        kind = update.WhichOneof("update")
        if kind == "snapshot":
            assert update.prev_sequence == 0
            self.bids, self.asks = {}, {}
            self.mode = update.snapshot.mode
            self.snapshots += 1
            self._take(update.snapshot)
        else:
            assert update.prev_sequence == self.sequence, "a gap"
            if kind == "delta":
                self._take(update.delta)
            elif kind == "mode":
                self.mode = update.mode
        self.sequence = update.sequence
        self.token = update.resume_token
        assert update.symbol
        assert update.checksum == self.checksum(), kind

    def _take(self, levels: pb.BookSnapshot | pb.BookDelta) -> None:
        for side, changed in ((self.bids, levels.bids), (self.asks, levels.asks)):
            for level in changed:
                if float(level.quantity) == 0:
                    assert side.pop(level.price, None) is not None, f"{level.price} went, and was not there"
                else:
                    side[level.price] = (level.quantity, level.order_count)

    def best(self, depth: int = 0) -> tuple[list[tuple[str, str, int]], list[tuple[str, str, int]]]:
        """Bids and asks, best first."""
        bids = sorted(self.bids, key=float, reverse=True)
        asks = sorted(self.asks, key=float)
        end = depth or None
        return [(price, *self.bids[price]) for price in bids[:end]], [
            (price, *self.asks[price]) for price in asks[:end]
        ]

    def checksum(self) -> int:
        """As `MarketService.StreamOrderBook` says."""
        bids, asks = self.best(10)
        parts = []
        for rank in range(10):
            for side in (bids, asks):
                if rank < len(side):
                    parts.append(side[rank][0])
                    parts.append(side[rank][1])
        return crc32(":".join(parts).encode("ascii"))
