"""The command line as a process, against a small exchange; and its pure parts."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pincex.trading.v1.admin_replicas_pb2 import ReplicaComparison
from pincex.trading.v1.admin_replicas_pb2 import VerifyJournalProgress as Progress
from pincex_client import ExchangeClient
from pincex_client.cli.app import hoist_global_options
from pincex_client.cli.context import to_json
from pincex_client.cli.markets import stream_depth
from pincex_client.cli.render import aligned, ladder, table
from pincex_client.models import Level
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer
from tests.unit.client.recorded import write_flow


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Run = Callable[..., Awaitable[Done]]


@pytest.fixture
def pincex(server: FakeServer, tmp_path: Path) -> Run:
    """Runs `pincex ARGUMENTS` against the fake."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PINCEX_")}
    addresses = {
        "PINCEX_TARGET": server.target,
        "PINCEX_OPS_TARGET": server.target,
        "PINCEX_ACCOUNT": "demo",
        "PINCEX_TIMEOUT": "2",
    }

    async def run(*arguments: str, **variables: str) -> Done:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; from pincex_client.cli import main; sys.exit(main())",
            *arguments,
            env={**environment, **addresses, **variables},
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    return run


async def test_an_order_is_placed_shown_listed_and_cancelled(pincex: Run) -> None:
    placed = await pincex("place", "BTCUSD", "buy", "1.5", "100.25", "--client-order-id", "mine", "--json")
    assert placed.status == 0, placed.stderr
    order_id = placed.json["order_id"]
    assert (placed.json["price"], placed.json["side"], placed.json["status"]) == ("100.25", "BUY", "PENDING")
    shown, listed = await asyncio.gather(pincex("order", order_id), pincex("orders"))
    assert "100.25" in shown.stdout
    assert order_id in listed.stdout
    assert "PENDING" in listed.stdout
    changed = await pincex("replace", "--client-order-id", "mine", "--price", "99", "--quantity", "2", "--json")
    assert (changed.json["price"], changed.json["open_quantity"]) == ("99", "2")
    reduced = await pincex("reduce", order_id, "--by", "1", "--json")
    assert reduced.json["open_quantity"] == "1"
    cancelled = await pincex("cancel", order_id)
    assert (cancelled.status, "CANCELLED" in cancelled.stdout) == (0, True)
    assert "no open orders" in (await pincex("orders")).stdout


async def test_a_refusal_says_reason_message_and_what_to_do_and_ends_with_1(pincex: Run) -> None:
    refused = await pincex("place", "NOPE", "buy", "1", "100")
    assert refused.status == 1
    assert refused.stdout == ""
    assert "UNKNOWN_SYMBOL" in refused.stderr
    assert "no such market" in refused.stderr
    assert "pincex markets" in refused.stderr
    scripted = await pincex("place", "NOPE", "buy", "1", "100", "--json")
    assert scripted.status == 1
    assert scripted.json["error"]["reason"] == "UNKNOWN_SYMBOL"
    assert scripted.json["error"]["metadata"]["symbol"] == "NOPE"


async def test_wrong_usage_ends_with_2(pincex: Run) -> None:
    found = await asyncio.gather(
        pincex("place", "BTCUSD", "hold", "1", "100"),
        pincex("cancel"),
        pincex("cancel", "7", "--all"),
        pincex("no-such-command"),
        pincex("order"),
        pincex("trades", "--market"),
        pincex("place", "BTCUSD", "buy", "1", "2", "--tif", "gtd", "--expire-time", "tomorrow"),
    )
    assert [done.status for done in found] == [2] * 7
    assert "one of BUY, SELL" in found[0].stderr
    assert "--all" in found[1].stderr
    assert all("Traceback" not in done.stderr for done in found)


async def test_an_unreachable_exchange_ends_with_3(pincex: Run, server: FakeServer) -> None:
    await server.kill()
    done = await pincex("markets")
    assert done.status == 3
    assert "unreachable" in done.stderr
    assert "pincex up" in done.stderr


async def test_a_market_is_watched_also_while_its_last_24_hours_are_not_known(pincex: Run) -> None:
    frame, as_json = await asyncio.gather(pincex("watch", "BTCUSD", "--once"), pincex("watch", "BTCUSD", "--json"))
    assert (frame.status, as_json.status) == (0, 0), frame.stderr
    assert "the last 24 hours are not known now" in frame.stdout
    assert (as_json.json["ticker"], as_json.json["book"]["symbol"]) == (None, "BTCUSD")


async def test_limits_and_busy_accounts_are_shown(pincex: Run) -> None:
    limits, as_json, busy, busy_json = await asyncio.gather(
        pincex("limits"),
        pincex("limits", "--json"),
        pincex("admin", "busy-accounts", "--window", "60", "--more-than", "7"),
        pincex("admin", "busy-accounts", "--json"),
    )
    assert "orders_left" in limits.stdout.replace(" ", "_"), limits.stderr
    assert (as_json.json["orders_left"], as_json.json["tier"]) == (97, "standard")
    assert [line.split() for line in busy.stdout.splitlines()[1:3]] == [
        ["first", "7", "60", "0"],
        ["second", "7", "60", "0"],
    ]
    assert "seen for 40 s only" in busy.stdout
    assert [row["order_count"] for row in busy_json.json["accounts"]] == [100, 100]
    assert [row["cancel_count"] for row in busy_json.json["accounts"]] == [300, 300]


async def test_books_balances_markets_and_credits_are_shown(pincex: Run, client: ExchangeClient) -> None:
    await client.place_order("BTCUSD", "BUY", 2, "100.00")
    await client.place_order("BTCUSD", "SELL", 1, "101.50")
    credited = await pincex("credit", "demo", "USD", "1000.50", "--request-id", "once")
    assert "1,000.50" in credited.stdout, credited.stderr
    book, balances, markets, trades, as_json = await asyncio.gather(
        pincex("book", "BTCUSD"),
        pincex("balances"),
        pincex("markets"),
        pincex("trades"),
        pincex("book", "BTCUSD", "--depth", "1", "--json"),
    )
    assert "spread 1.50" in book.stdout
    assert "1,000.50" in balances.stdout
    assert "BTCUSD" in markets.stdout
    assert trades.stdout == "no trades\n"
    assert as_json.json["bids"] == [{"price": "100.00", "quantity": "2", "order_count": 1}]


async def test_operators_commands_go_to_the_ops_listener(pincex: Run) -> None:
    halted = await pincex("admin", "halt", "BTCUSD", "--reason", "test", "--json")
    assert halted.json["mode"] == "HALTED"
    on = await pincex("admin", "circuit-breaker", "on")
    assert "circuit breaker  on" in on.stdout
    validated = await pincex("admin", "validate", "BTCUSD")
    assert validated.status == 1, "an invariant that does not hold is a failure"
    assert "money_conserved" in validated.stdout
    nobody = await pincex("admin", "mass-cancel", "--reason", "test")
    assert nobody.status == 2


def replica(instance: str, role: str, state_hash: str, book_hash: str = "") -> ReplicaComparison:
    """An instance as a comparison finds it."""
    known: dict[str, Any] = {
        "version": "1.2.3",
        "core_mode": "compiled",
        "supported_rules_version": 2,
        "sequence": 1_234,
    }
    return ReplicaComparison(instance=instance, role=role, state_hash=state_hash, book_hash=book_hash, **known)


async def test_equal_replicas_are_shown_with_their_hashes_and_end_with_0(pincex: Run, exchange: FakeExchange) -> None:
    state_hash, book_hash = "a1" * 32, "b2" * 32
    exchange.replicas = [
        replica("engine-1", "LEADER", state_hash, book_hash),
        replica("engine-2", "FOLLOWER", state_hash, book_hash),
    ]
    shown, told = await asyncio.gather(
        pincex("replicas", "--symbol", "BTCUSD"), pincex("replicas", "--symbol", "BTCUSD", "--json")
    )
    assert (shown.status, told.status) == (0, 0), shown.stderr
    title, header, first, second = [line.split() for line in shown.stdout.splitlines()]
    assert title == ["hashes", "at", "sequence", "1,234"]
    assert header == ["instance", "role", "sequence", "state", "hash", "book", "hash", "version", "core", "rules"]
    assert first == f"engine-1 LEADER 1,234 {state_hash[:16]} {book_hash[:16]} 1.2.3 compiled 2".split()
    assert second[:2] == ["engine-2", "FOLLOWER"]
    assert shown.stderr == ""
    assert told.json["identical"] is True
    assert told.json["replicas"][1]["state_hash"] == state_hash, "scripts get all of it"
    assert [request.symbol for request in exchange.requests] == ["BTCUSD", "BTCUSD"]


async def test_replicas_that_differ_end_with_1(pincex: Run, exchange: FakeExchange) -> None:
    exchange.replicas = [replica("engine-1", "LEADER", "a1" * 32), replica("engine-2", "FOLLOWER", "c3" * 32)]
    shown, told = await asyncio.gather(pincex("replicas"), pincex("replicas", "--json"))
    assert (shown.status, told.status) == (1, 1)
    assert "DIFFER at sequence 1,234" in shown.stderr
    assert told.json["identical"] is False


async def test_a_replica_that_did_not_answer_is_named_and_is_no_difference(pincex: Run, exchange: FakeExchange) -> None:
    exchange.replicas = [replica("engine-1", "LEADER", "a1" * 32), replica("engine-2", "FOLLOWER", "")]
    shown, told = await asyncio.gather(pincex("replicas"), pincex("replicas", "--json"))
    assert (shown.status, told.status) == (0, 0)
    assert "no answer" in shown.stdout
    for done in (shown, told):
        assert done.stderr == "no answer from engine-2: it was not compared\n"
    assert told.json["replicas"][1]["state_hash"] == ""


async def test_leadership_is_given_away_and_rules_are_activated_for_a_reason(
    pincex: Run, exchange: FakeExchange
) -> None:
    alone = await pincex("admin", "hand-over", "--reason", "upgrade")
    assert alone.status == 3
    assert "no follower is there" in alone.stderr
    assert len(exchange.requests) == 1, "a repeat would give leadership away once more"
    exchange.replicas = [replica("engine-2", "FOLLOWER", "a1" * 32)]
    given = await pincex("admin", "hand-over", "--reason", "upgrade")
    assert "fake-1 led up to sequence 1,234" in given.stdout
    activated = await pincex("admin", "activate-rules", "2", "--reason", "all are new", "--json")
    assert activated.json == {"rules_version": 2, "sequence": 1_234}
    refused = await pincex("admin", "activate-rules", "3")
    assert (refused.status, "RULES_NOT_SUPPORTED" in refused.stderr) == (1, True)
    assert [request.reason for request in exchange.requests] == ["upgrade", "upgrade", "all are new", ""]


async def test_a_journal_that_is_valid_ends_with_0_and_its_hashes(pincex: Run, exchange: FakeExchange) -> None:
    exchange.verification = [
        Progress(sequence=0, to_sequence=9_000),
        Progress(sequence=5_000, to_sequence=9_000, frame_count=400),
        Progress(sequence=9_000, to_sequence=9_000, done=True, valid=True, frame_hash="f00d", state_hash="beef"),
    ]
    shown, told = await asyncio.gather(
        pincex("journal", "verify"), pincex("journal", "verify", "--from", "3", "--to", "9000", "--json")
    )
    assert (shown.status, told.status) == (0, 0), shown.stderr
    assert "valid up to sequence 9,000" in shown.stdout
    assert "f00d" in shown.stdout
    assert "beef" in shown.stdout
    assert shown.stderr.splitlines() == ["verified up to 0 of 9,000", "verified up to 5,000 of 9,000"]
    assert (told.json["valid"], told.json["state_hash"], told.stderr) == (True, "beef", "")
    asked = sorted((request.from_sequence, request.to_sequence) for request in exchange.requests)
    assert asked == [(0, 0), (3, 9_000)]


async def test_a_journal_that_is_not_valid_ends_with_1_and_the_place(pincex: Run, exchange: FakeExchange) -> None:
    place = "shard 0, sequence 12: the frame 12..14 hashes to [0]"
    exchange.verification = [Progress(sequence=11, to_sequence=20, done=True, difference=place)]
    shown, told = await asyncio.gather(pincex("journal", "verify"), pincex("journal", "verify", "--json"))
    assert (shown.status, told.status) == (1, 1)
    assert f"NOT VALID: {place}" in shown.stdout
    assert (told.json["valid"], told.json["difference"]) == (False, place)


async def test_a_verification_without_a_result_is_no_success(pincex: Run, exchange: FakeExchange) -> None:
    refused = await pincex("journal", "verify", "--from", "2", "--json")
    assert (refused.status, refused.json["error"]["reason"]) == (1, "SEQUENCE_NOT_RETAINED")
    assert refused.json["error"]["metadata"] == {"floor_sequence": "7"}
    exchange.verification = [Progress(sequence=5, to_sequence=9)]
    assert (await pincex("journal", "verify")).status == 3, "it was cut off"
    assert (await pincex("journal", "verify", "--from", "5", "--to", "4")).status == 2


async def test_a_book_of_the_past_is_asked_for_by_its_sequence(
    pincex: Run, client: ExchangeClient, exchange: FakeExchange
) -> None:
    placed = await client.place_order("BTCUSD", "BUY", 2, "100.00")
    shown = await pincex("book", "BTCUSD", "--at-sequence", str(placed.sequence))
    assert "100.00" in shown.stdout
    assert exchange.requests[-1].as_of_sequence == placed.sequence
    beyond = await pincex("book", "BTCUSD", "--at-sequence", str(placed.sequence + 1))
    assert beyond.status == 1
    assert "SEQUENCE_IN_FUTURE" in beyond.stderr
    for wrong in (("--at-sequence", "0"), ("--at-sequence", "1", "--watch")):
        assert (await pincex("book", "BTCUSD", *wrong)).status == 2


async def test_events_stream_as_lines_of_json(pincex: Run, client: ExchangeClient, server: FakeServer) -> None:
    await client.place_order("BTCUSD", "BUY", 2, "100.00")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from pincex_client.cli import main; sys.exit(main())",
        *("--target", server.target, "events", "--json", "--account", "demo"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        first = json.loads(await process.stdout.readline())
        await client.cancel_all_orders()
        second = json.loads(await process.stdout.readline())
        process.send_signal(2)
        await process.communicate()
    assert (first["type"], len(first["orders"])) == ("OrdersSnapshot", 1)
    assert (second["type"], second["status"]) == ("Order", "CANCELLED")
    assert process.returncode == 0, "Ctrl-C is how one leaves a stream"


async def test_a_recorded_flow_is_replayed_and_compared(pincex: Run, tmp_path: Path, seed: int) -> None:
    files = write_flow(tmp_path, 300, seed)
    expected = ("--expect", str(files.fills), "--book", str(files.book))
    equal = await pincex("replay", str(files.commands), *expected)
    assert equal.status == 0, equal.stdout + equal.stderr
    assert f"{files.fill_count:,}" in equal.stdout
    assert "equal" in equal.stdout
    assert "AAPLX" in equal.stdout
    lines = files.fills.read_text().splitlines()
    files.fills.write_text("\n".join(lines[:-1]) + "\n")
    different = await pincex("replay", str(files.commands), *expected, "--symbol", "ESH4", "--json")
    assert different.status == 1, different.stderr
    assert different.json["symbol"] == "ESH4"
    assert [each["expected"] for each in different.json["differences"]] == ["no fill"]
    assert not different.json["equal"]


async def test_a_flow_that_cannot_be_read_ends_with_2(pincex: Run, tmp_path: Path) -> None:
    file = tmp_path / "flow.csv"
    file.write_text("seq,ts_ns,kind,order_id,side,price,quantity,tif\n1,0,NEW,1,BUY,x,1,GTC\n")
    done = await pincex("replay", str(file))
    assert done.status == 2
    assert "line 2" in done.stderr
    assert (await pincex("replay", str(tmp_path / "nowhere.csv"))).status == 2


async def test_an_unreachable_exchange_ends_a_replay_with_3(
    pincex: Run, tmp_path: Path, server: FakeServer, exchange: FakeExchange
) -> None:
    files = write_flow(tmp_path, 10, 1)
    await server.kill()
    done = await pincex("replay", str(files.commands), "--patience", "1")
    assert done.status == 3


@pytest.mark.parametrize(
    ("given", "hoisted"),
    [
        ("orders --json", "--json orders"),
        ("place BTCUSD buy 1 --account a --json", "--account a --json place BTCUSD buy 1"),
        ("--json orders --target=x", "--json --target=x orders"),
        ("status --json", "status --json"),
        ("admin mass-cancel --account a --json", "--json admin mass-cancel --account a"),
        ("--account status orders --json", "--account status --json orders"),
        ("order -- --json", "order -- --json"),
        ("--help", "--help"),
    ],
)
def test_global_options_may_stand_anywhere(given: str, hoisted: str) -> None:
    assert hoist_global_options(given.split()) == hoisted.split()


def test_points_of_amounts_stand_in_one_line() -> None:
    assert aligned([Decimal("1.25"), Decimal(1000), None]) == ["    1.25", "1,000   ", "        "]
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(table(("asset", "total"), [("BTC", Decimal("1.25")), ("USD", Decimal(1000))]))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert lines[1].index("1.25") - lines[2].index("1,000") == 4


def test_a_ladder_has_the_spread_between_asks_above_and_bids_below() -> None:
    def level(price: str) -> Level:
        return Level(Decimal(price), Decimal(2), 1)

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(ladder("X", [level("99.5"), level("99")], [level("101"), level("102")]))
    text = console.export_text()
    places = [text.index(each) for each in ("102", "101", "spread 1.5", "99.5", "99  ")]
    assert places == sorted(places)


def test_streams_offer_few_depths() -> None:
    assert [stream_depth(depth) for depth in (1, 10, 11, 200, 201)] == [10, 10, 50, 200, 0]


def test_amounts_are_text_in_json() -> None:
    assert to_json({"a": (Decimal("1E-8"), None, 1)}) == {"a": ["0.00000001", None, 1]}
