"""What settlement posts is what the engine moved: in each frame, on each account, for any history."""

from __future__ import annotations

from collections import defaultdict

import pytest

from exchange.settlement.ledger import chart
from exchange.settlement.ledger.books import Books, UnknownThing
from exchange.settlement.service.intake import Intake
from exchange.trading.core import commands as cmd
from pincex.journal.v1 import event_service_pb2 as pb
from tests.unit.settlement.history import History

SEEDS = range(12)


def lines_of(books: Books) -> list[list[int | str]]:
    """The postings of the batch, as numbers where they are numbers."""
    found = []
    for line in books.batch.lines:
        parts = line.rstrip("\n").split("\t")
        found.append([int(part) if part.lstrip("-").isdigit() else part for part in parts])
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_after_each_frame_the_books_have_what_the_engine_has(seed: int) -> None:
    history = History(seed)
    for _ in range(150):
        history.play(1)
        assert history.ledger_balances() == history.engine_balances()
        assert {place: tuple(pair) for place, pair in history.moved.items() if any(pair)} == history.ledger_balances()
        assert all(amount >= 0 for (_, _, kind), amount in history.books.balances.items() if kind != chart.CUSTODY)
    assert history.trades > 20, "there was trade"


@pytest.mark.parametrize("seed", SEEDS)
def test_each_transaction_sums_to_zero_and_custody_is_what_is_owed(seed: int) -> None:
    history = History(seed)
    history.play(150)
    sums: dict[tuple[object, object], int] = defaultdict(int)
    running: dict[tuple[object, ...], int] = defaultdict(int)
    for number, line in enumerate(lines_of(history.books), start=1):
        posting, transaction, account, asset, kind, _, amount, after, *_ = line
        assert isinstance(amount, int)
        assert posting == number, "numbered without a gap"
        sums[transaction, asset] += amount
        running[account, asset, kind] += -amount if kind in chart.DEBIT_KINDS else amount
        assert running[account, asset, kind] == after
    assert not any(sums.values())
    totals: dict[str, int] = defaultdict(int)
    for (_, asset, kind), amount in history.books.balances.items():
        totals[asset] += -amount if kind in chart.DEBIT_KINDS else amount
    assert not any(totals.values())
    assert {asset.code: asset.supply for asset in history.engine.state.assets} == {
        asset: sum(amount for (_, code, kind), amount in history.books.balances.items() if (code, kind) == (asset, 4))
        for asset, _ in (("BTC", 8), ("USD", 2), ("ETH", 6))
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_open_orders_are_the_engines(seed: int) -> None:
    history = History(seed)
    history.play(150)
    state = history.engine.state
    units = history.translator._units
    theirs = {}
    for account in state.accounts.values():
        for order_id, order in account.orders.items():
            scale, per_lot = units(order.market.index), order.market.base_per_lot
            filled, left = order.lots_filled * per_lot, order.lots_open * per_lot
            theirs[order_id] = (account.name, scale.symbol, filled, left, "PARTIAL" if filled else "PENDING")
    ours = {
        number: (order.user_id, order.symbol, order.filled, order.open, order.status)
        for number, order in history.books.orders.open.items()
    }
    assert ours == theirs
    assert len(theirs) > 3


def test_money_of_a_network_lies_there_and_other_money_with_us() -> None:
    assert chart.custody_of("deposit:bitcoin:7") == "custody:bitcoin"
    assert chart.custody_of("withdrawal:bitcoin:7") == "custody:bitcoin"
    assert chart.custody_of("reversal:bitcoin:7") == "custody:bitcoin"
    assert chart.custody_of("withdrawal-fee:bitcoin:7") == "custody:bitcoin"
    for reference in ("fund-1", "deposit:", "deposit::7", "deposit:bitcoin", "deposit:bitcoin:", "other:bitcoin:7", ""):
        assert chart.custody_of(reference) == "custody:manual", reference


def test_a_reference_cannot_break_out_of_its_column() -> None:
    history = History(0)
    history.books.take_batch()
    history.send(cmd.credit("ann", 0, 5, request_id="back\\slash\\n"))
    assert all(line.count("\t") == 9 and line.count("\n") == 1 for line in history.books.batch.lines)
    assert "back\\\\slash\\\\n" in history.books.batch.lines[0]


@pytest.mark.parametrize(
    "event",
    [
        pb.Event(sequence=9, order_cancelled=pb.OrderCancelled(order_id="77", released_amount="0", held_asset="USD")),
        pb.Event(sequence=9, order_accepted=pb.OrderAccepted(order_id="77", symbol="NONE", held_amount="0")),
        pb.Event(sequence=9, balance_adjusted=pb.BalanceAdjusted(asset="XXX", amount="1")),
        pb.Event(sequence=9, balance_adjusted=pb.BalanceAdjusted(asset="USD", amount="1", account="ann")),
    ],
    ids=lambda event: str(event.WhichOneof("event")),
)
def test_what_no_event_before_has_made_stops_it(event: pb.Event) -> None:
    with pytest.raises(UnknownThing):
        History(0).intake.take(pb.EventBatch(events=[event]))


def test_a_loss_is_a_claim_in_place_of_an_asset() -> None:
    books = Books()
    books.add_asset("USD", 2)
    books.deposit(1, 0, "ann", "USD", 100, "deposit:bank:1")
    books.loss(1, 0, "custody:bank", "USD", 30, "lost-1")
    named = {number: name for name, number in books.accounts.items()}
    assert {(named[number], kind): amount for (number, _, kind), amount in books.balances.items()} == {
        ("ann", chart.AVAILABLE): 100,
        ("custody:bank", chart.CUSTODY): 70,
        ("suspense:losses", chart.SUSPENSE): 30,
    }
    assert lines_of(books)[-1][1] == -1, "a transaction of its own"


def test_an_event_that_moves_nothing_is_passed_over() -> None:
    books = Books()
    Intake(books).take(pb.EventBatch(events=[pb.Event(sequence=1, book_hashed=pb.BookHashed(symbol="X"))]))
    assert not books.batch.rows
