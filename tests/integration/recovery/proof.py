"""What must hold after any number of deaths, checked against the journal itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from exchange.trading import codec, recovery
from exchange.trading.core import commands as cmd
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import E_KIND, R_COMMAND, R_ORDER_ID, R_REASON, R_SEQUENCE, TRADE, Result
from exchange.trading.core.invariants import check_market, check_money
from exchange.trading.journal.contract import Journal
from exchange.trading.journal.postgres import PostgresJournal
from pincex.common.v1 import errors_pb2
from pincex_client import Balance
from tests.integration.recovery.load import Load, Target

UNITS = 10**8


@dataclass(frozen=True, slots=True)
class Proved:
    """What was looked at."""

    frames: int
    commands: int
    epochs: int
    orders: int
    trades: int
    answers: int


async def prove(engine: Target, load: Load) -> Proved:
    """Settle what is open, then check everything. The load has stopped; nothing else writes."""
    await load.settle()
    async with engine.client() as exchange:
        while True:
            running = await exchange.admin.engine_state()
            journal = await PostgresJournal.open(engine.database.trading_url)
            try:
                replayed = await recovery.recover(journal, from_genesis=True)
                if replayed.engine.state.sequence != running.sequence:
                    continue  # The engine has published a book's hash meanwhile.
                assert replayed.engine.state_hash() == running.state_hash, "the running book is not the journal's"
                proved = await _read_all(journal, load)
            finally:
                await journal.close()
            break
        balances = {
            account: {balance.asset: balance for balance in await _balances(engine, account)}
            for account in sorted({asked.account for asked in load.asked})
        }
    _check_answers(replayed.engine, load)
    _check_money(replayed.engine, load)
    for account, assets in balances.items():
        for code, balance in assets.items():
            ours = replayed.engine.state.accounts[account].balances[replayed.engine.state.asset_index[code]]
            assert (int(balance.available * UNITS), int(balance.held * UNITS)) == (ours.available, ours.held), (
                account,
                code,
            )
    return proved


async def _balances(engine: Target, account: str) -> list[Balance]:
    async with engine.client(account) as exchange:
        return await exchange.list_balances()


async def _read_all(journal: Journal, load: Load) -> Proved:
    """Read every frame, verified link by link, and count what each id did."""
    counts: Counter[tuple[str, bool, str]] = Counter()
    numbers: Counter[tuple[str, str, int]] = Counter()
    frames = commands = trades = 0
    epochs = set()
    async for frame in journal.read(1):
        frames += 1
        epochs.add(frame.epoch)
        for command in codec.decode_commands(frame.commands):
            commands += 1
            if command[cmd.C_REQUEST_ID]:
                key = (command[cmd.C_ACCOUNT], command[cmd.C_KIND] == cmd.PLACE, command[cmd.C_REQUEST_ID])
                counts[key] += 1
            if command[cmd.C_SESSION]:
                numbers[(command[cmd.C_ACCOUNT], command[cmd.C_SESSION], command[cmd.C_NUMBER])] += 1
        trades += sum(event[E_KIND] == TRADE for events in codec.decode_events(frame.events) for event in events)
    assert [key for key, count in counts.items() if count > 1] == [], "ids that were applied twice"
    assert [key for key, count in numbers.items() if count > 1] == [], "session numbers that were applied twice"
    missing = [asked for asked in load.asked if counts[(asked.account, asked.placed, asked.name)] != 1]
    told = [(asked.account, asked.name, asked.told) for asked in missing[:5]]
    assert not missing, f"answered, and not in the journal: {len(missing)}, first {told}"
    orders = sum(count for (_, placed, _), count in counts.items() if placed)
    return Proved(frames, commands, len(epochs), orders, trades, len(load.asked))


def _check_answers(engine: Engine, load: Load) -> None:
    """Every answer is what the journal's replay would answer, and all differ in their orders."""
    orders: set[str] = set()
    for asked in load.asked:
        told = asked.told
        assert told is not None
        account = engine.state.accounts[asked.account]
        result = (account.placed if asked.placed else account.requests)[asked.name]
        if told.reason:
            assert errors_pb2.ErrorReason.Name(result[R_REASON]) == told.reason, asked.name
            continue
        assert result[R_REASON] == 0, asked.name
        if not told.order_id:
            continue
        assert int(told.order_id) == result[R_ORDER_ID], asked.name
        if asked.placed:
            assert result[R_ORDER_ID] == result[R_SEQUENCE]
            assert told.order_id not in orders, f"order {told.order_id} was given to two ids"
            orders.add(told.order_id)


def _check_money(engine: Engine, load: Load) -> None:
    """Nothing came from nowhere: what all accounts hold is what was credited, each credit once."""
    state = engine.state
    findings = [*check_money(state), *(finding for market in state.markets for finding in check_market(state, market))]
    assert [finding for finding in findings if not finding[1]] == []
    credited = Counter(
        {
            code: sum(result[R_COMMAND][cmd.F_AMOUNT] for result in _credits_of(engine, code))
            for code in state.asset_index
        }
    )
    for code, index in state.asset_index.items():
        held = sum(
            balance.available + balance.held
            for account in state.accounts.values()
            for asset, balance in account.balances.items()
            if asset == index
        )
        assert held == credited[code] == state.assets[index].supply, code
    applied = sum(name.startswith(f"{load.run}credit-") for name in state.accounts["demo"].requests)
    assert applied == load.credited


def _credits_of(engine: Engine, code: str) -> list[Result]:
    """Results of the credits of an asset."""
    index = engine.state.asset_index[code]
    return [
        result
        for account in engine.state.accounts.values()
        for result in account.requests.values()
        if result[R_COMMAND][cmd.C_KIND] == cmd.CREDIT
        and result[R_COMMAND][cmd.F_ASSET] == index
        and result[R_REASON] == 0
    ]
