"""Names of markets, assets and accounts, and the forms in which clients may write them."""

from __future__ import annotations

import re

ASSET_CODE = re.compile(r"[A-Z0-9]{2,10}")
SYMBOL = re.compile(r"[A-Z0-9]{2,20}")
ACCOUNT = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
MAX_CLIENT_ID = 64

DEMO_ACCOUNT = "demo"
"""Who anonymous callers on loopback are on the development profile."""


def canonical_symbol(text: str) -> str:
    """The one form of a symbol: "BTC/USD", "btc-usd", "BTC%2FUSD" and "BTCUSD" are all "BTCUSD". Whether the market exists is not checked."""
    if text.isalnum() and text.isupper():
        return text
    return text.replace("%2F", "/").replace("%2f", "/").replace("/", "").replace("-", "").upper()


def is_account(text: str) -> bool:
    """Whether the text may name an account: 1 to 64 of letters, digits, `_`, `.`, `-`."""
    return ACCOUNT.fullmatch(text) is not None


def is_client_id(text: str) -> bool:
    """Whether the text may be an id chosen by a client: 1 to 64 printable ASCII characters without spaces."""
    return 0 < len(text) <= MAX_CLIENT_ID and text.isascii() and text.isprintable() and " " not in text
