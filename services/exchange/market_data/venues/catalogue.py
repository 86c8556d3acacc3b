"""The venues that we know: where each is, what it speaks, and what it calls our markets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exchange.market_data.venues.binance import BinanceDialect
from exchange.market_data.venues.coinbase import CoinbaseDialect

if TYPE_CHECKING:
    from exchange.market_data.venues.dialect import Counts, Dialect

BINANCE, COINBASE, SIMULATED = "binance", "coinbase", "simulated"


@dataclass(frozen=True, slots=True)
class Venue:
    """`url` is of its WebSocket, `rest_url` of what is fetched beside it; `products` are its names of our markets."""

    name: str
    dialect: Callable[[Mapping[str, str], Counts], Dialect]
    url: str
    rest_url: str
    products: Mapping[str, str]


_DASHED: Final = MappingProxyType({"BTCUSD": "BTC-USD", "ETHUSD": "ETH-USD"})

VENUES: Final = MappingProxyType(
    {
        BINANCE: Venue(
            BINANCE,
            BinanceDialect,
            "wss://stream.binance.com:9443",
            "https://api.binance.com",
            # Binance has no dollar: Tether stands for it, and what it is off by is part of the deviation.
            MappingProxyType({"BTCUSD": "BTCUSDT", "ETHUSD": "ETHUSDT"}),
        ),
        COINBASE: Venue(COINBASE, CoinbaseDialect, "wss://advanced-trade-ws.coinbase.com", "", _DASHED),
        # Listens on this machine, where the instance that runs the feeds starts it.
        SIMULATED: Venue(SIMULATED, CoinbaseDialect, "", "", _DASHED),
    }
)
