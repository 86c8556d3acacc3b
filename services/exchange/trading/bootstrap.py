"""What a new exchange begins with: the newest rules; in development two markets too, and money for `demo` and `maker`."""

from __future__ import annotations

from typing import Final

from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import STP_CANCEL_NEWEST
from exchange.trading.core.events import R_REASON
from exchange.trading.service.desk import Desk

OPERATOR: Final = "$engine"

ASSETS: Final = (("BTC", 8), ("ETH", 8), ("USD", 8))
FUNDS: Final = {
    "demo": {"BTC": 100, "ETH": 1_000, "USD": 10_000_000},
    "maker": {"BTC": 1_000, "ETH": 10_000, "USD": 100_000_000},
}
MAKER_FEE_PPM: Final = 1_000
TAKER_FEE_PPM: Final = 2_000
BAND_PPM: Final = 500_000
PROTECTION_PPM: Final = 50_000


def _market(symbol: str, base: int, *, lot_units: int, reference_ticks: int) -> Command:
    """A market against USD with a tick of 0.01."""
    definition = (
        symbol, base, 2, 1, 2, lot_units, 1, 0, 100_000_000,
        MAKER_FEE_PPM, TAKER_FEE_PPM, BAND_PPM, PROTECTION_PPM, STP_CANCEL_NEWEST, reference_ticks,
    )  # fmt: skip
    return cmd.create_market(OPERATOR, definition)


def development_commands() -> list[Command]:
    """In order: assets, markets, credits. Lots of 0.00001 BTC and 0.0001 ETH, least notional 1 USD."""
    commands = [cmd.create_asset(OPERATOR, code, decimals) for code, decimals in ASSETS]
    commands.append(_market("BTCUSD", 0, lot_units=1_000, reference_ticks=5_000_000))
    commands.append(_market("ETHUSD", 1, lot_units=10_000, reference_ticks=300_000))
    codes = [code for code, _ in ASSETS]
    for account, amounts in FUNDS.items():
        for code, amount in amounts.items():
            units = amount * 10 ** ASSETS[codes.index(code)][1]
            commands.append(cmd.credit(account, codes.index(code), units, request_id=f"development-{account}-{code}"))
    return commands


async def begin(desk: Desk, newest: int, *, development: bool) -> None:
    """Give an exchange that has no assets yet, so that nothing has happened under older rules, the rules up to `newest`:
    those that all instances support. Later ones wait for an operator (docs/UPGRADES.md). All at once: one frame has it or
    none.
    """
    state = desk.state
    if state.assets:
        return
    commands = [cmd.activate_rules(OPERATOR, version) for version in range(state.rules_version + 1, newest + 1)]
    if development:
        commands += development_commands()
    for result in await desk.submit(commands) if commands else ():
        assert result[R_REASON] == 0, f"what an exchange begins with was refused: {result}"
