"""One form for each symbol, and which names may exist."""

import pytest

from exchange.domain.symbols import ASSET_CODE, SYMBOL, canonical_symbol, is_account, is_client_id
from exchange.trading.core.constants import FEE_ACCOUNT


@pytest.mark.parametrize(
    "text", ["BTCUSD", "BTC/USD", "BTC-USD", "btcusd", "btc/usd", "btc-usd", "Btc-Usd", "BTC%2FUSD", "btc%2fusd"]
)
def test_every_form_of_a_symbol_is_one(text: str) -> None:
    assert canonical_symbol(text) == "BTCUSD"


def test_symbols_with_digits_keep_them() -> None:
    assert canonical_symbol("es-h4") == "ESH4"
    assert canonical_symbol("1INCHUSD") == "1INCHUSD"


@pytest.mark.parametrize("name", ["demo", "Maker-1", "a.b_c", "x" * 64])
def test_names_that_an_account_may_have(name: str) -> None:
    assert is_account(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "ümlaut", "a\n", "$fees", FEE_ACCOUNT])
def test_names_that_an_account_may_not_have(name: str) -> None:
    assert not is_account(name)


@pytest.mark.parametrize("text", ["1", "order#7", "~!@", "x" * 64])
def test_ids_that_a_client_may_choose(text: str) -> None:
    assert is_client_id(text)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "tab\t", "line\n", "é", "\x7f"])
def test_ids_that_a_client_may_not_choose(text: str) -> None:
    assert not is_client_id(text)


def test_codes_and_symbols_are_capitals_and_digits() -> None:
    assert ASSET_CODE.fullmatch("BTC")
    assert SYMBOL.fullmatch("BTCUSD")
    for wrong in ("btc", "B", "BTC-USD", ""):
        assert not ASSET_CODE.fullmatch(wrong)
        assert not SYMBOL.fullmatch(wrong)
