"""Prints the digest of all events and the state hash of one seeded flow: `python -m tests.unit.core.digests SEED`.

A process of its own, so that hash seed and mode of the core can differ between runs.
"""

from __future__ import annotations

import random
import sys
from hashlib import sha256

import msgspec

from exchange.trading import core_loader
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine

ACCOUNTS = ("ann", "bob", "cy", "dee", "eve")
COMMANDS = 6_000


def setup() -> list[Command]:
    """Two markets, five accounts with money, two sessions each."""
    rules = (1, 500, 20, 333, 7_777, 300_000, 50_000)
    commands = [cmd.create_asset("operator", f"A{number}", 0) for number in range(3)]
    commands += [
        cmd.create_market("operator", ("ONE", 0, 1, 1, 0, 10, *rules, c.STP_CANCEL_OLDEST, 1_000)),
        cmd.create_market("operator", ("TWO", 2, 1, 3, 0, 1, *rules, c.STP_NONE, 1_000)),
    ]
    for account in ACCOUNTS:
        commands += [cmd.credit(account, asset, 2_000_000, request_id=f"c{asset}") for asset in range(3)]
        commands += [
            cmd.open_session(account, name, cancel_on_disconnect=name == "s1", grace_ms=1_000, dead_man_ms=0)
            for name in ("s1", "s2")
        ]
    return commands


def next_command(draw: random.Random, sequence: int, time_ns: int) -> Command:
    """A command of any kind, most of them of orders; ids refer to whatever may be open."""
    account, market = draw.choice(ACCOUNTS), draw.randrange(2)
    chance, lots, price = draw.random(), draw.randint(1, 40), round(draw.gauss(1_000, 12))
    recent = sequence - draw.randint(1, 60)
    name = f"o{sequence}" if draw.random() < 0.5 else ""
    side, stp = draw.choice((c.BUY, c.SELL)), draw.randrange(5)
    if chance < 0.5:
        tif = draw.choice((c.GTC, c.GTC, c.GTC, c.IOC, c.FOK))
        post_only = tif == c.GTC and draw.random() < 0.2
        return cmd.place(
            account, market, side, c.LIMIT, lots, price, tif=tif, stp=stp, post_only=post_only, client_order_id=name
        )
    if chance < 0.55:
        expire = time_ns + draw.randint(1, 900)
        return cmd.place(account, market, side, c.LIMIT, lots, price, tif=c.GTD, expire_ns=expire, client_order_id=name)
    if chance < 0.6:
        return cmd.place(account, market, side, c.MARKET, lots, 0, tif=c.IOC, stp=stp)
    if chance < 0.7:
        stop = price + (6 if side == c.BUY else -6)
        return cmd.place(account, market, side, c.STOP, lots, 0, tif=c.IOC, stop=stop, stp=stp)
    if chance < 0.8:
        return cmd.cancel(account, order_id=recent, request_id=f"r{sequence}")
    if chance < 0.86:
        return cmd.replace(account, lots, price, order_id=recent)
    if chance < 0.92:
        return cmd.reduce(account, draw.randint(1, 9), order_id=recent)
    return rare(draw, sequence, account, market)


def rare(draw: random.Random, sequence: int, account: str, market: int) -> Command:
    """What operators, wallets and sessions send."""
    name = f"r{sequence}"
    amount = draw.randint(1, 5_000)
    return draw.choice(
        [
            cmd.cancel_all(account, market),
            cmd.mass_cancel("operator", account, market),
            cmd.mass_cancel("operator", account, key=draw.choice(("ak_1", "ak_2"))),
            cmd.credit(account, draw.randrange(4), amount, request_id=name),
            cmd.hold(account, 1, amount, request_id=name),
            cmd.settle_hold(account, f"r{sequence - draw.randint(1, 200)}", request_id=name),
            cmd.transfer(account, draw.choice(ACCOUNTS), 1, amount, request_id=name),
            cmd.update_market("operator", market, {9: draw.randint(0, 900), 10: draw.randint(0, 9_000)}),
            cmd.set_account_limits("operator", account, draw.choice((0, 20, 100))),
            cmd.set_retention("operator", draw.choice((50, 1_000)), 10**15, draw.choice((30, 2_000))),
            cmd.open_session(account, "s3", cancel_on_disconnect=True, grace_ms=9, dead_man_ms=1_000),
            cmd.close_session(account, "s3"),
            cmd.expire_session(account, "s3"),
            cmd.hash_book(market),
            cmd.tick(),
        ]
    )


def flow(seed: int, count: int = COMMANDS) -> list[tuple[int, Command]]:
    """(time, command): sessions and the clock's jumps included."""
    draw = random.Random(seed)
    listed = [(1_000, command) for command in setup()]
    time_ns = 1_000
    numbers = dict.fromkeys(ACCOUNTS, 0)
    while len(listed) < count:
        if len(listed) in (count // 3, count // 2):
            listed.append((time_ns, cmd.activate_rules("operator", 2 if len(listed) == count // 3 else 3)))
        time_ns += draw.choice((-5, 0, 1, 3, 20))
        command = next_command(draw, len(listed) + 1, time_ns)
        if command[0] == cmd.PLACE and draw.random() < 0.4:
            command = (*command, draw.choice(("", "ak_1", "ak_2")), draw.choice((0, 5, 20)), draw.choice((0, 30)))
        if command[0] in (cmd.PLACE, cmd.CANCEL) and draw.random() < 0.3:
            account = command[1]
            numbers[account] += 1
            command = (*command[:2], "s2", numbers[account], *command[4:])
        listed.append((time_ns, command))
    return listed


class Player:
    """Applies a flow, repeats and refusals that never reach the engine left out, and keeps a digest of all events."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or Engine()
        self.digest = sha256()
        self.trades = 0

    def play(self, listed: list[tuple[int, Command]]) -> None:
        for time_ns, command in listed:
            if self.engine.recall(command) is None:
                events = self.engine.apply(self.engine.state.sequence + 1, time_ns, command)
                self.digest.update(msgspec.msgpack.encode([events, self.engine.result]))
                self.trades += sum(event[0] == 4 for event in events)


if __name__ == "__main__":
    player = Player()
    player.play(flow(int(sys.argv[1])))
    print(core_loader.mode(), player.digest.hexdigest(), player.engine.state_hash(), player.trades)
