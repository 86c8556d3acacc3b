"""The history writes each candle once and for good, whoever dies when."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from exchange.market_data import history_store
from exchange.market_data.candles import INTERVALS, NANOSECONDS, Trade
from exchange.market_data.history import Frame, State
from exchange.runtime.event_feed import FeedError, FeedLost
from tests.integration.market_data.history_rig import (
    Engine,
    Heard,
    candle_rows,
    market_data_url,
    rows,
    running_history,
    token,
    written,
)
from tests.integration.settlement.settlement_app import as_superuser
from tests.integration.trading.engine_app import eventually
from tests.unit.market_data.histories import MIDNIGHT, batches, naive_bars, naive_summary, trade

if TYPE_CHECKING:
    from tests.postgres_fixture import Database

START_NS = MIDNIGHT * NANOSECONDS


def frames_of(history: list[list[Trade]]) -> list[Frame]:
    """One frame a batch; sequences that two batches share are one command's: the frame ends with the second."""
    frames: list[Frame] = []
    for batch in history:
        if frames and frames[-1].last_sequence >= batch[-1].sequence:
            batch = [*frames.pop().trades, *batch]  # noqa: PLW2901
        last = batch[-1].sequence
        frames.append(Frame(last, token(last), batch[-1].time_ns, batch))
    return frames


def expected_rows(trades: list[Trade]) -> list[tuple[Any, ...]]:
    found = []
    for symbol in sorted({one.symbol for one in trades}):
        for length_s in sorted(INTERVALS.values()):
            for bar in naive_bars(trades, symbol, length_s):
                values = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume, bar.trade_count)
                found.append((symbol, length_s, bar.start_s, *values, bar.sequence, bar.last_quantity))
    return found


def some_trades(count: int = 40, step_ns: int = 7 * NANOSECONDS) -> list[Trade]:
    prices = (f"{100 + number % 7}.{number % 100:02}" for number in range(count))
    return [
        trade("BTCUSD", START_NS + number * step_ns, number + 1, price, "0.10000")
        for number, price in enumerate(prices)
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_the_tables_hold_what_the_trades_say_and_a_replay_gives_the_same(database: Database, seed: int) -> None:
    trades = some_trades(60, step_ns=(seed * 400 + 1) * NANOSECONDS)
    engine = Engine()
    async with running_history(database, engine) as history:
        for one in trades:
            engine.push(one)
            if one.sequence % 20 == 0:
                await written(database, history, engine)
        await written(database, history, engine)
    found = candle_rows(database)
    assert found == expected_rows(trades)
    rows(database, "ALTER TABLE candles DISABLE TRIGGER USER")
    rows(database, "TRUNCATE candles, market_data_offset")
    rows(database, "ALTER TABLE candles ENABLE TRIGGER USER")
    async with running_history(database, Engine(engine.frames)) as history:
        await written(database, history, engine)
    assert [[str(cell) for cell in row] for row in candle_rows(database)] == [
        [str(cell) for cell in row] for row in found
    ]


async def test_what_is_read_from_the_tables_goes_on_as_if_it_had_never_stopped(database: Database) -> None:
    """Also with trades on both sides of the day's window, and candles that were closed and open."""
    for number, batch in enumerate(_histories()):
        fresh = database.server.create_database()
        try:
            frames = frames_of(batch)
            half = len(frames) // 2 + 1
            engine = Engine(frames[:half])
            engine.head_sequence = frames[half - 1].last_sequence
            async with running_history(fresh, engine) as history:
                await written(fresh, history, engine)
            engine.frames = frames
            engine.head_sequence = frames[-1].last_sequence
            async with running_history(fresh, engine) as history:
                await written(fresh, history, engine)
                days = history.days
                assert days is not None
                trades = [one for frame in frames for one in frame.trades]
                assert candle_rows(fresh) == expected_rows(trades), number
                second = trades[-1].time_ns // NANOSECONDS
                for symbol, window in days.windows.items():
                    assert window.at(second + 17) == naive_summary(trades, symbol, second + 17)
        finally:
            fresh.server.drop_database(fresh.name)


def _histories() -> list[list[list[Trade]]]:
    found: list[list[list[Trade]]] = []

    @settings(max_examples=4, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(batches())
    def gather(history: list[list[Trade]]) -> None:
        found.append(history)

    gather()
    return found


async def test_an_instance_that_dies_between_any_two_writes_loses_and_doubles_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is cut off before and after its commit, again and again."""
    trades = some_trades(8, step_ns=20 * NANOSECONDS)
    engine = Engine()
    write, attempts, cuts = history_store.write, 0, {2: "before", 3: "after", 5: "after", 6: "before", 7: "before"}

    async def cut_off(connection: Any, *arguments: Any) -> None:
        nonlocal attempts
        attempts += 1
        if cuts.get(attempts) == "before":
            connection.terminate()
        await write(connection, *arguments)
        if cuts.get(attempts) == "after":
            connection.terminate()
            raise ConnectionError("the answer was lost")

    monkeypatch.setattr(history_store, "write", cut_off)
    monkeypatch.setattr("exchange.market_data.history.RETRY_S", 0.01)
    monkeypatch.setattr("exchange.market_data.history.WRITE_EVERY_S", 0.01)
    heard = Heard()
    async with running_history(database, engine) as history:
        history.listen(heard)
        for one in trades:
            before = attempts
            engine.push(one)
            await eventually(lambda: attempts > before, "it was written, or not")  # noqa: B023 - called at once
        await written(database, history, engine)
    assert attempts > max(cuts)
    assert candle_rows(database) == expected_rows(trades)
    assert heard.frames == sorted(set(heard.frames)), "nothing is published twice"
    assert heard.frames[-1] == engine.head_sequence


async def test_one_writes_and_another_stands_by_and_takes_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.market_data.history.STANDBY_POLL_S", 0.02)
    trades = some_trades()
    engine = Engine()
    heard = Heard()
    async with running_history(database, engine, "second") as second:
        async with running_history(database, engine, "first") as first:
            await eventually(lambda: first.is_writer or second.is_writer, "one writes")
            writer, other = (first, second) if first.is_writer else (second, first)
            other.listen(heard)
            for one in trades[:20]:
                engine.push(one)
            await written(database, writer, engine)
            await eventually(lambda: other.sequence == engine.head_sequence, "the other follows")
            assert (other.is_writer, other.state) == (False, State.STANDBY)
            if writer is second:
                return
        for one in trades[20:]:
            engine.push(one)
        await eventually(lambda: second.is_writer, "the other took over")
        await written(database, second, engine)
    assert candle_rows(database) == expected_rows(trades)
    assert heard.frames == list(range(1, len(trades) + 1)), "who reads from it noticed nothing"


async def test_a_writer_that_was_overtaken_writes_nothing(database: Database) -> None:
    engine = Engine()
    async with running_history(database, engine) as history:
        for one in some_trades(5):
            engine.push(one)
        await written(database, history, engine)
        rows(database, "UPDATE market_data_offset SET sequence = 7, resume_token = %s", token(7))
        before = candle_rows(database)
        engine.push(some_trades(6)[-1])
        await eventually(lambda: (7, token(7)) in engine.asked, "it begins with the tables again")
    assert candle_rows(database) == before


async def test_a_lost_feed_is_followed_again_and_another_history_stops_it(database: Database) -> None:
    engine = Engine()
    async with running_history(database, engine) as history:
        engine.push(some_trades(1)[0])
        await written(database, history, engine)
        engine.fault = FeedError("the engine ended the stream")
        engine.wake()
        await eventually(lambda: history.state is State.WAITING_FOR_ENGINE, "it waits")
        engine.fault = None
        await eventually(lambda: (1, token(1)) in engine.asked, "it asks again, with the token")
        engine.fault = FeedLost("HISTORY_CHANGED: restored")
        engine.wake()
        await eventually(lambda: history.state is State.STOPPED, "it stops")
        assert history.problem == "FeedLost: HISTORY_CHANGED: restored"


@pytest.mark.parametrize("how", ["the engine refuses", "the database ends the session"])
async def test_after_a_restore_nothing_is_told_that_was_lost_and_it_goes_on_by_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Tables and journal are back at sequence 2 of 6, under a running instance."""
    refuses = how == "the engine refuses"
    monkeypatch.setattr("exchange.market_data.history.STOPPED_LOOK_S", 0.02)
    monkeypatch.setattr("exchange.market_data.history.WRITE_EVERY_S", 0.01)
    trades, heard, engine = some_trades(7), Heard(), Engine()
    async with running_history(database, engine) as history:
        history.listen(heard)
        for one in trades[:2]:
            engine.push(one)
        await written(database, history, engine)
        at_two = rows(database, "SELECT resume_token, event_time_ns FROM market_data_offset")[0]
        candles_at_two = candle_rows(database)
        for one in trades[2:6]:
            engine.push(one)
        await written(database, history, engine)
        with psycopg.connect(database.admin_url, autocommit=True) as owner, owner.transaction():
            owner.execute("ALTER TABLE candles DISABLE TRIGGER USER")
            owner.execute("TRUNCATE candles")
            columns = "symbol, interval_s, open_time, " + history_store.COLUMNS.partition(", ")[2]
            for symbol, length_s, start_s, *values in candles_at_two:
                row = (symbol, length_s, history_store.EPOCH + timedelta(seconds=start_s), *values)
                owner.execute(f"INSERT INTO candles ({columns}) VALUES ({', '.join(['%s'] * len(row))})", row)
            owner.execute("ALTER TABLE candles ENABLE TRIGGER USER")
            owner.execute("UPDATE market_data_offset SET sequence = 2, resume_token = %s, event_time_ns = %s", at_two)
            del engine.frames[2:]
            engine.incarnation, engine.head_sequence = "second", 2
        if refuses:
            engine.fault = FeedLost("HISTORY_CHANGED: restored")
            engine.wake()
            await eventually(lambda: heard.stops == 1, "streams end")
            engine.fault = None
        else:
            end = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s AND datname = %s"
            )
            as_superuser(database, end, "%history", database.name)
        await eventually(lambda: (2, token(2)) in engine.asked[1:], "it begins with the tables")
        told = len(heard.frames)
        engine.push(trades[6]._replace(sequence=3))
        await written(database, history, engine)
        assert (history.sequence, heard.frames[told:], heard.stops) == (3, [3], 1 + refuses)
        assert history.state is State.RUNNING
    assert candle_rows(database) == expected_rows([*trades[:2], trades[6]._replace(sequence=3)])


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM candles",
        "TRUNCATE candles",
        "UPDATE candles SET open = 1",
        "UPDATE candles SET high = high + 1",
        "UPDATE candles SET trade_count = trade_count + 1, sequence = sequence + 1",
        "INSERT INTO candles SELECT * FROM candles",
        "SELECT maker_user_id FROM trades",
        "DELETE FROM market_data_offset",
    ],
)
async def test_a_candle_cannot_be_corrected(database: Database, statement: str) -> None:
    engine = Engine()
    async with running_history(database, engine) as history:
        for one in some_trades(3):
            engine.push(one)
        await written(database, history, engine)
    before = candle_rows(database)
    with psycopg.connect(market_data_url(database), autocommit=True) as connection, pytest.raises(psycopg.Error):
        connection.execute(statement)
    assert candle_rows(database) == before


async def test_a_closed_candle_gets_no_trade_though_all_else_would_fit(database: Database) -> None:
    engine = Engine()
    async with running_history(database, engine) as history:
        engine.push(some_trades(1)[0])
        engine.push(time_ns=START_NS + NANOSECONDS)
        await written(database, history, engine)
    grow = """
        UPDATE candles SET trade_count = trade_count + 1, sequence = sequence + 1, volume = volume + 1,
            quote_volume = quote_volume + 1 WHERE interval_s = %s
    """
    with psycopg.connect(market_data_url(database), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.CheckViolation, match="until it is closed"):
            connection.execute(grow, (1,))
        assert connection.execute(grow, (60,)).rowcount == 1
    assert rows(database, "SELECT volume FROM candles WHERE interval_s = 60") == [(Decimal("1.10000"),)]
