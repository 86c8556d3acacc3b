"""Statements add up to the smallest unit, page by page and as one file, over random histories; each account sees its own."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.runtime import postgres
from exchange.runtime.database import Database
from exchange.runtime.principal import Principal
from exchange.runtime.request import RequestContext, set_request_context
from exchange.settlement import store
from exchange.settlement.service.statements import StatementService
from exchange.settlement.store import Offset
from pincex.settlement.v1 import statement_service_pb2 as pb
from tests.integration.settlement.settlement_app import Settlement, trade_some
from tests.integration.trading.engine_app import Exchange, refused
from tests.unit.settlement.history import ACCOUNTS, ASSETS, History

if TYPE_CHECKING:
    from tests import postgres_fixture

WANTED = pb.GetStatementRequest(asset="USD")


async def pages(settlement: Settlement, account: str, size: int, **fields: Any) -> list[pb.Statement]:
    """All pages of a statement."""
    found: list[pb.Statement] = []
    token = ""
    while True:
        request = pb.GetStatementRequest(page_size=size, page_token=token, **fields)
        found.append(await settlement.statement("GetStatement", request, account))
        token = found[-1].next_page_token
        if not token:
            return found


def assert_adds_up(found: list[pb.Statement]) -> list[pb.StatementLine]:
    """Opening + lines = closing, line by line; all pages say the same of the whole."""
    first = found[0]
    balance = Decimal(first.opening_balance)
    lines = [line for page in found for line in page.lines]
    for line in lines:
        balance += Decimal(line.amount)
        assert Decimal(line.balance) == balance
    assert balance == Decimal(first.closing_balance)
    assert Decimal(first.opening_balance) + Decimal(first.change) == balance
    heads = {(page.opening_balance, page.closing_balance, page.change, page.sequence) for page in found}
    assert len(heads) == 1
    return lines


async def test_pages_and_the_file_add_up_to_what_the_engine_says(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 6)
    sequence = await settlement.settled(exchange)
    for account in ("demo", "maker"):
        balances = await exchange.client(account).balances()
        for asset in ("USD", "BTC"):
            found = await pages(settlement, account, 3, asset=asset)
            lines = assert_adds_up(found)
            assert (found[0].account, found[0].asset, found[0].sequence) == (account, asset, sequence)
            assert Decimal(found[0].opening_balance) == 0
            assert Decimal(found[0].closing_balance) == sum(map(Decimal, balances[asset]))
            assert len(found) > 2, "there is more than one page"
            assert {line.cause for line in lines} <= {"trade", "fee", "deposit"}
            file = await settlement.statement("GetStatementCsv", pb.GetStatementRequest(asset=asset), account)
            assert file.content_type.startswith("text/csv")
            header, opening, *body, closing = csv.reader(io.StringIO(file.data.decode()))
            assert header == ["time", "cause", "reference", "amount", "balance", "sequence"]
            assert (opening[1], opening[4]) == ("opening", found[0].opening_balance)
            assert (closing[1], closing[4]) == ("closing", found[0].closing_balance)
            assert [row[1:5] for row in body] == [
                [line.cause, line.reference, line.amount, line.balance] for line in lines
            ]


async def test_periods_join_without_a_gap(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 4)
    await settlement.settled(exchange)
    whole = assert_adds_up(await pages(settlement, "demo", 500, asset="USD"))
    middle = whole[len(whole) // 2].line_time
    before = await pages(settlement, "demo", 500, asset="USD", to_time=middle)
    after = await pages(settlement, "demo", 500, asset="USD", from_time=middle)
    assert assert_adds_up(before) + assert_adds_up(after) == whole
    assert before[0].closing_balance == after[0].opening_balance
    future = Timestamp(seconds=4_000_000_000)
    empty = await pages(settlement, "demo", 500, asset="USD", from_time=future, to_time=future)
    assert (empty[0].opening_balance, list(empty[0].lines)) == (after[0].closing_balance, [])


async def test_later_pages_are_of_the_same_ledger_as_the_first(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 3)
    await settlement.settled(exchange)
    first = await settlement.statement("GetStatement", pb.GetStatementRequest(asset="USD", page_size=2), "demo")
    await trade_some(exchange, 2)
    await settlement.settled(exchange)
    request = pb.GetStatementRequest(asset="USD", page_size=2, page_token=first.next_page_token)
    found = [first]
    while request.page_token:
        found.append(await settlement.statement("GetStatement", request, "demo"))
        request.page_token = found[-1].next_page_token
    assert_adds_up(found)


async def test_fees_are_those_of_the_fills(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 4)
    await settlement.settled(exchange)
    for account, role in (("demo", "taker"), ("maker", "maker")):
        report = await settlement.statement("GetFeeReport", pb.GetFeeReportRequest(), account)
        (line,) = report.lines
        assert (report.account, line.symbol, line.role, line.asset) == (account, "BTCUSD", role, "USD")
        orders = await exchange.client(account).listed(page_size=500, statuses=[1, 2, 3, 4])
        assert Decimal(line.fees) == sum(Decimal(order.fee_paid) for order in orders)
        assert Decimal(line.notional) == sum(Decimal(order.filled_notional) for order in orders)
        assert line.trade_count == settlement.app.settler.offset.trade_count
    none = await settlement.statement("GetFeeReport", pb.GetFeeReportRequest(to_time=Timestamp(seconds=1)), "demo")
    assert not none.lines


async def test_who_never_had_anything_has_an_empty_statement(exchange: Exchange, settlement: Settlement) -> None:
    await settlement.settled(exchange)
    found = await settlement.statement("GetStatement", WANTED, "nobody")
    assert Decimal(found.opening_balance) == Decimal(found.closing_balance) == 0
    assert not found.lines
    assert not (await settlement.statement("GetFeeReport", pb.GetFeeReportRequest(), "nobody")).lines


async def test_a_file_too_long_for_one_message_comes_in_parts(
    exchange: Exchange, settlement: Settlement, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trade_some(exchange, 4)
    await settlement.settled(exchange)
    whole = (await settlement.statement("GetStatementCsv", WANTED, "demo")).data
    monkeypatch.setattr("exchange.settlement.service.statement_file.PART_LINES", 2)
    parts = await settlement.export(pb.ExportStatementRequest(asset="USD"), "demo")
    assert {part.content_type for part in parts} == {"text/csv; charset=utf-8"}
    assert len(parts) > 3
    assert b"".join(part.data for part in parts) == whole
    monkeypatch.setattr("exchange.settlement.service.statements.MAX_FILE_BYTES", len(whole) - 1)
    refusal = await refused(settlement.statement("GetStatementCsv", WANTED, "demo"))
    assert refusal.reason == "RESPONSE_TOO_LARGE"
    assert "ExportStatement" in str(refusal)
    unknown = settlement.export(pb.ExportStatementRequest(asset="XXX"), "demo")
    assert (await refused(unknown)).reason == "UNKNOWN_ASSET"


async def test_a_period_that_begins_after_all_is_empty(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 1)
    await settlement.settled(exchange)
    later = pb.GetStatementRequest(asset="USD", from_time=Timestamp(seconds=4_000_000_000))
    found = await settlement.statement("GetStatement", later, "demo")
    assert (found.opening_balance, len(found.lines)) == (found.closing_balance, 0)
    _, opening, closing = (await settlement.statement("GetStatementCsv", later, "demo")).data.decode().splitlines()
    assert opening.split(",")[0] == closing.split(",")[0]


async def test_a_reference_that_a_spreadsheet_would_run_is_text(exchange: Exchange, settlement: Settlement) -> None:
    await exchange.credit("demo", "USD", "1", "=cmd|'/c'!A1")
    await settlement.settled(exchange)
    file = await settlement.statement("GetStatementCsv", WANTED, "demo")
    assert "'=cmd" in file.data.decode()
    assert ",=cmd" not in file.data.decode()


async def test_bad_input_is_refused(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 1)
    await settlement.settled(exchange)
    page = await settlement.statement("GetStatement", pb.GetStatementRequest(asset="USD", page_size=1), "demo")
    token = page.next_page_token
    early, late = Timestamp(seconds=5), Timestamp(seconds=9)
    for fields, reason, field in (
        ({}, "FIELD_REQUIRED", "asset"),
        ({"asset": "XXX"}, "UNKNOWN_ASSET", ""),
        ({"asset": "USD", "page_size": 501}, "INVALID_FIELD", "page_size"),
        ({"asset": "USD", "page_token": "rubbish"}, "INVALID_PAGE_TOKEN", "page_token"),
        ({"asset": "BTC", "page_token": token}, "INVALID_PAGE_TOKEN", "page_token"),
        ({"asset": "USD", "from_time": late, "to_time": early}, "INVALID_FIELD", "to_time"),
        ({"asset": "USD", "from_time": Timestamp(seconds=-5)}, "INVALID_FIELD", "from_time"),
        ({"asset": "USD", "to_time": Timestamp(seconds=2**40)}, "INVALID_FIELD", "to_time"),
        ({"asset": "USD", "to_time": Timestamp(seconds=1, nanos=2_000_000_000)}, "INVALID_FIELD", "to_time"),
    ):
        refusal = await refused(settlement.statement("GetStatement", pb.GetStatementRequest(**fields), "demo"))
        assert (refusal.reason, refusal.metadata.get("field", "")) == (reason, field), fields
    foreign = pb.GetStatementRequest(asset="USD", page_token=token)
    assert (await refused(settlement.statement("GetStatement", foreign, "maker"))).reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_adds_up_for_every_account_and_asset(database: postgres_fixture.Database, seed: int) -> None:
    """Self trades, stops, holds, transfers: written by the store as they are, drawn up by the service without a wire."""
    history = History(seed)
    history.play(120)
    books = history.books
    connection = await postgres.connect(database.settlement_url, application_name="test")
    try:
        _, old = await store.load(connection)
        new = Offset(history.engine.state.sequence, "t", books.posting_id, books.trade_count, history.time_ns)
        await store.write(connection, store.Rows(books), old, new)
    finally:
        await connection.close()
    reading = Database(database.settlement_url, "test")
    await reading.open()
    service = StatementService(reading)
    stands = history.engine_balances()
    try:
        for account in ACCOUNTS:
            for asset, decimals in ASSETS:
                found, request = [], pb.GetStatementRequest(asset=asset, page_size=17)
                while True:
                    found.append(await as_account(service, account, request))
                    request.page_token = found[-1].next_page_token
                    if not request.page_token:
                        break
                assert_adds_up(found)
                closing = Decimal(found[0].closing_balance).scaleb(decimals)
                assert closing == sum(stands.get((account, asset), (0, 0)))
    finally:
        await reading.close()
    with psycopg.connect(database.admin_url) as asked:
        (fees,) = asked.execute("SELECT coalesce(sum(maker_fee + taker_fee), 0) > 0 FROM trades").fetchone() or (0,)
    assert fees, "there were fees to add up"


async def as_account(service: StatementService, account: str, request: pb.GetStatementRequest) -> pb.Statement:
    """A call as the guard would hand it over."""
    principal = Principal(account=account, roles=frozenset(), source="test")
    set_request_context(RequestContext("t", principal, None, "GetStatement", "test"))
    return await service.GetStatement(request, None)
