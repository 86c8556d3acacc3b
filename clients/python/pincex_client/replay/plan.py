"""Which market, assets and account a run uses, and making them through the operator's contract."""

import re
from dataclasses import dataclass
from decimal import Decimal

from pincex_client.client import ExchangeClient
from pincex_client.errors import AlreadyExists, NotFound
from pincex_client.models import Market
from pincex_client.replay.flow import FlowCommand, FlowError, decimals_of, funds_needed, lot_of, tick_of

MAX_SYMBOL = 20
MAX_RUN_ID = 24
MAX_ASSET_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Asset codes follow from their decimals, so that runs share assets and never disagree on them."""

    run_id: str
    symbol: str
    tick: Decimal
    lot: Decimal
    base_decimals: int
    quote_decimals: int
    base_funds: Decimal
    quote_funds: Decimal

    @property
    def account(self) -> str:
        """The run's own account: its events are the run's fills and nothing else."""
        return f"replay-{self.run_id}"

    @property
    def base_asset(self) -> str:
        """Code of the asset that is traded."""
        return f"RPLB{self.base_decimals}"

    @property
    def quote_asset(self) -> str:
        """Code of the asset that pays."""
        return f"RPLQ{self.quote_decimals}"

    @property
    def prefix(self) -> str:
        """What stands before a recorded id in a client order id."""
        return f"{self.run_id}-"


def make_plan(
    commands: list[FlowCommand], *, symbol: str, run_id: str, tick: Decimal | None = None, lot: Decimal | None = None
) -> Plan:
    """Work out a run from the flow. Raises FlowError where no market could hold it."""
    if not re.fullmatch(rf"[A-Za-z0-9]{{1,{MAX_RUN_ID}}}", run_id):
        raise FlowError(f"run id {run_id!r}: 1 to {MAX_RUN_ID} letters or digits")
    tick = tick_of(commands) if tick is None else tick
    lot = lot_of(commands) if lot is None else lot
    base_decimals = decimals_of(lot)
    quote_decimals = decimals_of(tick * lot)
    if max(base_decimals, quote_decimals) > MAX_ASSET_DECIMALS:
        raise FlowError(f"tick {tick} x lot {lot} needs more than {MAX_ASSET_DECIMALS} decimals")
    base, quote = funds_needed(commands)
    return Plan(run_id, symbol, tick, lot, base_decimals, quote_decimals, base or lot, quote or tick * lot)


def symbol_of_file(name: str) -> str:
    """A symbol from a file name: `es-part-a.commands.csv` gives `ESPARTA`."""
    letters = re.sub(r"[^A-Z0-9]", "", name.split(".", maxsplit=1)[0].upper())[:12]
    return letters if len(letters) >= 2 else f"FLOW{letters}"


def with_suffix(symbol: str, run_id: str) -> str:
    """A symbol of this run alone, where the plain one is taken."""
    return f"{symbol[: MAX_SYMBOL - min(len(run_id), 8)]}{run_id[:8].upper()}"


async def choose_symbol(exchange: ExchangeClient, symbol: str, run_id: str, *, resumed: bool) -> str:
    """Return the symbol itself if no such market exists, else one of this run alone.

    A run that is continued (`resumed`) finds its market under its own symbol; a flow is only comparable when its
    market begins empty and with the flow's rules, so that a market of somebody else is never used.
    """
    if resumed:
        return with_suffix(symbol, run_id)
    try:
        await exchange.get_market(symbol)
    except NotFound:
        return symbol
    return with_suffix(symbol, run_id)


async def prepare(exchange: ExchangeClient, plan: Plan) -> Market:
    """Make what the run needs; whatever is there already stays, so that a run can be continued."""
    admin = exchange.admin
    for code, decimals in ((plan.base_asset, plan.base_decimals), (plan.quote_asset, plan.quote_decimals)):
        try:
            await admin.create_asset(code, decimals)
        except AlreadyExists:
            continue
    try:
        market = await admin.create_market(
            plan.base_asset,
            plan.quote_asset,
            symbol=plan.symbol,
            tick_size=plan.tick,
            lot_size=plan.lot,
            default_self_trade_prevention="NONE",
            price_band_ppm=0,
            maker_fee_ppm=0,
            taker_fee_ppm=0,
        )
    except AlreadyExists:
        market = await exchange.get_market(plan.symbol)
    rules = (market.tick_size, market.lot_size, market.base_asset, market.quote_asset)
    if rules != (plan.tick, plan.lot, plan.base_asset, plan.quote_asset):
        raise FlowError(f"market {plan.symbol} exists with other rules: choose another --symbol or --run-id")
    for asset, amount in ((plan.base_asset, plan.base_funds), (plan.quote_asset, plan.quote_funds)):
        await admin.credit_account(
            plan.account,
            asset,
            amount,
            request_id=f"{plan.prefix}fund-{asset}-{amount:f}",
            reason="replay of recorded flow",
        )
    await admin.set_account_limits(plan.account, 0, reason="replay of recorded flow")
    return market
