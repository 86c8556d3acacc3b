"""The reference price: the median of the venues that can be believed now, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exchange.market_data.venues.ticks import Tick

NO_BOOK, STALE, CROSSED, OUTLIER = "no_book", "stale", "crossed", "outlier"
_PPM: Final = 1_000_000
# Digits behind the point of a middle or a median.
_PLACES: Final = Decimal("0.00000001")
_NS_PER_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """When a venue counts. Of two venues farther apart than `outlier_ppm` allows nobody can say which is right: neither counts."""

    stale_s: float = 10.0
    outlier_ppm: int = 20_000


@dataclass(frozen=True, slots=True)
class VenuePrice:
    """One venue; `price` is the middle of its book. `deviation_ppm` is of the reference price; `why` says why it is left out."""

    tick: Tick
    price: Decimal | None
    why: str
    deviation_ppm: int | None = None

    @property
    def included(self) -> bool:
        """Whether it counts."""
        return not self.why


@dataclass(frozen=True, slots=True)
class Comparison:
    """All venues of a market by name; `price` is None where none counts. `price_ns` is when the oldest of those that count came."""

    symbol: str
    venues: tuple[VenuePrice, ...]
    price: Decimal | None
    price_ns: int | None

    @property
    def venue_count(self) -> int:
        """How many count."""
        return sum(venue.included for venue in self.venues)


def compare(symbol: str, ticks: Iterable[Tick], now_ns: int, rules: Rules) -> Comparison:
    """The newest tick of each venue, beside one another.

    Left out are, in this order: a venue without a whole book, one that has said nothing for `stale_s`, one whose book is crossed, and
    what is farther than `outlier_ppm` from the median of the rest. The reference price is the median of those that remain.
    """
    venues = [_judged(tick, now_ns, rules) for tick in sorted(ticks, key=lambda tick: tick.venue)]
    middle = median([venue.price for venue in venues if venue.included and venue.price is not None])
    if middle is not None:
        venues = [
            VenuePrice(venue.tick, venue.price, OUTLIER)
            if venue.included and abs(_ppm(venue.price, middle)) > rules.outlier_ppm
            else venue
            for venue in venues
        ]
    counting = [venue for venue in venues if venue.included]
    reference = median([venue.price for venue in counting if venue.price is not None])
    if reference is not None:
        venues = [
            VenuePrice(venue.tick, venue.price, venue.why, _ppm(venue.price, reference))
            if venue.price is not None
            else venue
            for venue in venues
        ]
    price_ns = min((venue.tick.received_ns for venue in counting), default=None)
    return Comparison(symbol, tuple(venues), reference, price_ns)


def median(prices: Sequence[Decimal]) -> Decimal | None:
    """The middle one, or the mean of the two in the middle; None of nothing."""
    if not prices:
        return None
    ordered = sorted(prices)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else _mean(ordered[half - 1], ordered[half])


def _judged(tick: Tick, now_ns: int, rules: Rules) -> VenuePrice:
    if tick.bid is None or tick.ask is None:
        return VenuePrice(tick, None, NO_BOOK)
    price = _mean(tick.bid, tick.ask)
    if now_ns - tick.received_ns > rules.stale_s * _NS_PER_SECOND:
        return VenuePrice(tick, price, STALE)
    return VenuePrice(tick, price, CROSSED if tick.bid >= tick.ask else "")


def _mean(one: Decimal, other: Decimal) -> Decimal:
    return ((one + other) / 2).quantize(_PLACES)


def _ppm(price: Decimal | None, of: Decimal) -> int:
    assert price is not None, "only a venue with a price counts"
    return int((price - of) * _PPM / of)
