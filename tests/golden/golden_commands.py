"""The commands of the golden journals: every kind, accepted and refused, and a market at work between them.

The journal of rules N begins under rules 1, as every exchange does, and activates the later ones in turn.
"""

from __future__ import annotations

import random

from exchange.trading.bootstrap import development_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.commands import Command
from exchange.trading.core.registry import D_BAND_PPM, D_TAKER_PPM

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
OPERATOR = "operator"
ORDERS = 240
_TYPES = (c.LIMIT, c.LIMIT, c.LIMIT, c.LIMIT, c.MARKET, c.STOP, c.STOP_LIMIT)


def time_of(first_sequence: int) -> int:
    """One second a sequence."""
    return START_NS + first_sequence * SECOND


def commands(rules: int) -> list[Command]:
    """All commands of the journal of these rules, in order."""
    made = [*_beginning(), *_trading(random.Random(1)), *_operators(), *_trading(random.Random(2))]
    if rules >= 2:
        made += [cmd.activate_rules(OPERATOR, 2), *_queue(), *_trading(random.Random(4), at_their_price=0.5)]
    if rules >= 3:
        made += [cmd.activate_rules(OPERATOR, 3), *_keys(random.Random(5))]
    return [*made, *_end()]


def _beginning() -> list[Command]:
    return [
        cmd.set_retention("$engine", 150, 86_400 * SECOND, 60),
        *development_commands(),
        cmd.create_asset(OPERATOR, "BTC", 8, request_id="again"),
        cmd.credit("small", 2, 5_000_000_000, request_id="small-usd"),
        cmd.set_account_limits(OPERATOR, "small", 1),
        cmd.open_session("demo", "s1", cancel_on_disconnect=True, grace_ms=5_000, dead_man_ms=0),
        cmd.open_session("maker", "s2", cancel_on_disconnect=False, grace_ms=1_000, dead_man_ms=10_000),
        cmd.close_session("small", "never opened"),
        _small("expires", expire_ns=time_of(60)),
    ]


def _small(name: str, *, expire_ns: int) -> Command:
    """An order that rests far below the market."""
    tif = c.GTD if expire_ns else c.GTC
    return cmd.place("small", 0, c.BUY, c.LIMIT, 100, 4_500_000, tif=tif, expire_ns=expire_ns, client_order_id=name)


def _order(rng: random.Random, number: int, name: str) -> Command:
    side, order_type = rng.choice((c.BUY, c.SELL)), rng.choice(_TYPES)
    price = 5_000_000 + rng.randint(-2_000, 2_000)
    stop = 0
    if order_type in (c.STOP, c.STOP_LIMIT):
        stop = price
        price = 0 if order_type == c.STOP else price + (500 if side == c.BUY else -500)
    elif order_type == c.MARKET:
        price = 0
    tif = rng.choice((c.GTC, c.GTC, c.IOC, c.FOK, c.GTD)) if order_type == c.LIMIT else c.GTC
    if order_type == c.MARKET:
        tif = c.IOC
    expire_ns = time_of(60 + number * 2) if tif == c.GTD else 0
    account = rng.choice(("demo", "demo", "maker", "maker", "small"))
    return cmd.place(
        account, 0, side, order_type, rng.randint(1, 40) * 10, price, tif=tif, stop=stop, expire_ns=expire_ns,
        post_only=order_type == c.LIMIT and tif == c.GTC and rng.random() < 0.2,
        stp=rng.choice((c.STP_DEFAULT, c.STP_NONE, c.STP_CANCEL_OLDEST, c.STP_CANCEL_BOTH)), client_order_id=name,
    )  # fmt: skip


def _trading(rng: random.Random, *, at_their_price: float = 0.0) -> list[Command]:
    """A market at work. This share of the replacements keeps the price that the order was placed at."""
    made: list[Command] = []
    placed: dict[str, Command] = {}
    prefix = f"o{rng.randrange(1_000)}-"
    for number in range(ORDERS):
        placed[f"{prefix}{number}"] = _order(rng, number, f"{prefix}{number}")
        made.append(placed[f"{prefix}{number}"])
        account, known = rng.choice(("demo", "maker")), f"{prefix}{rng.randrange(number + 1)}"
        match rng.randint(0, 11):
            case 0:
                made.append(cmd.cancel(account, client_order_id=known, request_id=f"{prefix}x{number}"))
            case 1:
                made.append(cmd.reduce(account, 10, client_order_id=known))
            case 2 | 4 | 5:
                price = 5_000_000 + rng.randint(-1_500, 1_500)
                if at_their_price and rng.random() < at_their_price:
                    account, price = placed[known][cmd.C_ACCOUNT], placed[known][cmd.P_PRICE]
                made.append(cmd.replace(account, rng.randint(1, 30) * 10, price, client_order_id=known))
            case 3 if number % 5 == 0:
                made.append(cmd.cancel_all(account, 0))
            case _:
                pass
    return made


def _queue() -> list[Command]:
    """Rules 2: three orders at one price, replaced with less, the same, more and another price, then traded away."""
    price = 250_000
    made = [
        cmd.place(account, 1, c.BUY, c.LIMIT, 100, price, tif=c.GTC, client_order_id=f"q-{account}")
        for account in ("demo", "maker", "small")
    ]
    for account, lots, at in (
        ("demo", 60, price), ("maker", 100, price), ("demo", 50, price), ("maker", 110, price),
        ("small", 90, price - 1), ("small", 80, price), ("demo", 0, price), ("demo", 40, price),
    ):  # fmt: skip
        made += [
            cmd.replace(account, lots, at, client_order_id=f"q-{account}"),
            cmd.hash_book(1),
        ]
    return [*made, *(cmd.place("maker", 1, c.SELL, c.LIMIT, 30, price, tif=c.IOC) for _ in range(7))]


def _keys(rng: random.Random) -> list[Command]:
    """Rules 3: a market at work for people and keys, keys that may have no more open orders, and a key that is stopped."""
    made = []
    for number, command in enumerate(_trading(rng)):
        key = rng.choice(((), ("ak_a", 0, 0), ("ak_a", 12, 0), ("ak_b", 3, 40), ("", 0, 25)))
        made.append((*command, *key) if command[cmd.C_KIND] == cmd.PLACE else command)
        if number % 60 == 59:
            made.append(cmd.mass_cancel(OPERATOR, "demo", key="ak_b", request_id=f"revocation-{number}"))
    low = [
        cmd.place("maker", 1, c.BUY, c.LIMIT, 100, 240_000 - step, tif=c.GTC, key="ak_c", key_max_open=2)
        for step in range(4)
    ]
    return [*made, *low, cmd.mass_cancel(OPERATOR, "maker", 1, key="ak_c"), *low[:1]]


def _operators() -> list[Command]:
    """Money, switches, modes, sessions: each once to good effect and once refused."""
    session = {"session": "s1", "number": 1}
    return [
        cmd.place("demo", 1, c.BUY, c.LIMIT, 100, 250_000, tif=c.GTC, client_order_id="in-session", **session),  # type: ignore[arg-type]
        cmd.reduce("demo", 10, client_order_id="in-session", request_id="r1"),
        cmd.replace("demo", 70, 240_000, client_order_id="in-session", request_id="r2"),
        cmd.cancel("demo", client_order_id="nobody placed this", request_id="r3"),
        cmd.hold("demo", 2, 1_000_000_000, request_id="w1"),
        cmd.hold("demo", 2, 2_000_000_000, request_id="w2"),
        cmd.hold("demo", 2, c.MAX_AMOUNT, request_id="w3"),
        cmd.settle_hold("demo", "w1", request_id="w1-done"),
        cmd.release_hold("demo", "w2", request_id="w2-back"),
        cmd.release_hold("demo", "w2", request_id="w2-again"),
        cmd.transfer("maker", "demo", 0, 123_456, request_id="t1"),
        cmd.transfer("maker", "new", 7, 1, request_id="t2"),
        cmd.update_market(OPERATOR, 0, {D_TAKER_PPM: 1_500, D_BAND_PPM: 400_000}),
        cmd.update_market(OPERATOR, 0, {3: 5}),
        cmd.set_market_mode(OPERATOR, 1, c.CANCEL_ONLY),
        cmd.place("demo", 1, c.BUY, c.LIMIT, 100, 250_000, tif=c.GTC, client_order_id="refused"),
        cmd.set_market_mode(OPERATOR, 1, c.HALTED),
        cmd.set_market_mode(OPERATOR, 1, c.OPEN),
        *(cmd.set_switch(OPERATOR, switch, on=on) for switch in (1, 2, 3) for on in (False, True)),
        cmd.place("demo", 0, c.BUY, c.LIMIT, 100, 5_000_000, tif=c.GTC, client_order_id="while stopped"),
        *(cmd.set_switch(OPERATOR, switch, on=False) for switch in (2, 3)),
        cmd.expire_session("demo", "s1"),
        cmd.hash_book(0),
        cmd.hash_book(9),
        cmd.tick(),
        cmd.activate_rules(OPERATOR, 1),
        cmd.activate_rules(OPERATOR, 99),
    ]


def _end() -> list[Command]:
    return [
        cmd.set_account_limits(OPERATOR, "small", 0),
        cmd.credit("small", 2, 100_000_000_000, request_id="small-more"),
        _small("mass-cancelled", expire_ns=0),
        cmd.mass_cancel(OPERATOR, "small", request_id="kill-switch"),
        cmd.close_session("maker", "s2"),
        cmd.hash_book(0),
        cmd.hash_book(1),
    ]
