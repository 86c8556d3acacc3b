"""docs/FEEDS.md: its test vectors hold by its own words, and the server's functions agree."""

from __future__ import annotations

import binascii
import hashlib
import re
import struct

import pytest

from exchange.domain.decimals import format_units, parse_units
from exchange.runtime.feeds.levels import checksum_of
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.book import hash_orders
from exchange.trading.core.engine import Engine
from exchange.trading.feeds.book_mirror import BookMirror
from pincex_client import checksum_of as clients_checksum_of
from tests.unit.docs.tables import document, table

pytestmark = pytest.mark.core

FEEDS = document("docs/FEEDS.md")
CHECKSUMS = table(FEEDS, "checksum")[1:]
HASHED = [(int(a), int(b), int(d), int(e)) for a, b, d, e in table(FEEDS, "book-hash")[1:]]
PRICE_DECIMALS, LOT_DECIMALS = 2, 5

Side = list[tuple[str, str]]


def side(cell: str) -> Side:
    pairs = [level.split() for level in cell.split(",") if level.strip()]
    return [(price, quantity) for price, quantity in pairs]


def by_the_words(bids: Side, asks: Side) -> int:
    """The definition of the document, followed word by word and by nothing of ours."""
    text = ""
    for turn in range(10):
        for levels in (bids, asks):
            if turn < len(levels):
                text += (":" if text else "") + levels[turn][0] + ":" + levels[turn][1]
    return binascii.crc32(text.encode("ascii")) & 0xFFFFFFFF


def in_units(levels: Side) -> list[tuple[int, int]]:
    return [(parse_units(price, PRICE_DECIMALS), parse_units(quantity, LOT_DECIMALS)) for price, quantity in levels]


def price_text(ticks: int) -> str:
    return format_units(ticks, PRICE_DECIMALS)


def quantity_text(lots: int) -> str:
    return format_units(lots, LOT_DECIMALS)


def book_of(bids: Side, asks: Side) -> Engine:
    """An engine with these levels, one order each, worst first so that nothing depends on the order of arrival."""
    engine = Engine()
    commands = [
        cmd.create_asset("operator", "BTC", 8),
        cmd.create_asset("operator", "USD", 8),
        cmd.create_market("operator", ("BTCUSD", 0, 1, 1, 2, 1_000, 1, 0, 0, 0, 0, 0, 0, c.STP_NONE, 0)),
        cmd.credit("ann", 0, 10**15, request_id="base"),
        cmd.credit("ann", 1, 10**16, request_id="quote"),
    ]
    for number, levels in ((c.BUY, bids), (c.SELL, asks)):
        commands += [
            cmd.place("ann", 0, number, c.LIMIT, lots, price, tif=c.GTC) for price, lots in reversed(in_units(levels))
        ]
    for command in commands:
        engine.apply(engine.state.sequence + 1, 0, command)
        assert engine.result[2] == 0, engine.result
    return engine


@pytest.mark.parametrize(("bids", "asks", "checksum"), CHECKSUMS)
def test_checksum_vectors(bids: str, asks: str, checksum: str) -> None:
    ours, theirs = side(bids), side(asks)
    assert by_the_words(ours, theirs) == int(checksum)
    assert checksum_of(in_units(ours)[:10], in_units(theirs)[:10], price_text, quantity_text) == int(checksum)
    best = [[f"{price}:{quantity}" for price, quantity in levels[:10]] for levels in (ours, theirs)]
    assert clients_checksum_of(*best) == int(checksum)
    engine = book_of(ours, theirs)
    mirror = BookMirror(engine.state.markets[0], engine.state.sequence)
    assert mirror.checksum(price_text, quantity_text) == int(checksum)


def test_the_checksum_vectors_cover_both_sides_and_more_than_ten_levels() -> None:
    sizes = [(len(side(bids)), len(side(asks))) for bids, asks, _ in CHECKSUMS]
    assert {(0, 0), (1, 0), (0, 1)} <= set(sizes)
    assert any(bids > 10 and 0 < asks < 10 for bids, asks in sizes)


def test_the_text_of_the_fourth_checksum_is_as_printed() -> None:
    printed = re.search(r"The text of the fourth: `([^`]+)`", FEEDS)
    assert printed is not None
    assert binascii.crc32(printed[1].encode()) == int(CHECKSUMS[3][2])


def test_the_book_hash_vector() -> None:
    printed = re.search(r"^    ([0-9a-f]{64})$", FEEDS, re.MULTILINE)
    assert printed is not None
    data = b"".join(struct.pack("<qqqq", *row) for row in HASHED)
    assert hashlib.sha256(data).hexdigest() == printed[1]
    assert hash_orders(HASHED) == printed[1]


def test_the_engines_own_book_hashes_in_the_order_of_the_document() -> None:
    engine = book_of([("50000.00", "1.00000"), ("49999.50", "0.50000")], [("50001.00", "0.25000")])
    first = engine.state.sequence - 2
    rows = [(1, 5_000_000, first + 1, 100_000), (1, 4_999_950, first, 50_000), (2, 5_000_100, first + 2, 25_000)]
    assert engine.book_hash("BTCUSD") == hashlib.sha256(b"".join(struct.pack("<qqqq", *r) for r in rows)).hexdigest()
    assert book_of([], []).book_hash("BTCUSD") == hashlib.sha256(b"").hexdigest()
