"""What the market maker needs from its environment, and what it says where that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.market_maker.config import Config
from exchange.runtime.config import ConfigError, Environment

GOOD = {
    "PINCEX_PROFILE": "production",
    "PINCEX_INTERNAL_TARGET": "127.0.0.1:1",
    "PINCEX_EDGE_TARGET": "127.0.0.1:2",
    "DATABASE_URL": "postgresql://x@h/d",
    "PINCEX_HOME": "/srv/pincex",
}


def test_the_key_lies_among_the_secrets_of_the_data_folder() -> None:
    found = Config.read(Environment(GOOD))
    assert found.key_file == Path("/srv/pincex/secrets/market-maker-key")
    assert (found.edge_target, found.interval_s, found.stale_after_s) == ("127.0.0.1:2", 0.5, 10.0)


@pytest.mark.parametrize("missing", ["DATABASE_URL", "PINCEX_INTERNAL_TARGET", "PINCEX_EDGE_TARGET"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        Config.read(Environment({name: value for name, value in GOOD.items() if name != missing}))


@pytest.mark.parametrize("interval", ["0", "nan", "6", "often"])
def test_an_interval_that_makes_no_sense_is_refused(interval: str) -> None:
    with pytest.raises(ConfigError, match="PINCEX_MARKET_MAKER_SECONDS"):
        Config.read(Environment({**GOOD, "PINCEX_MARKET_MAKER_SECONDS": interval}))
