"""A made-up flow in the recorded format, with what an independent matcher makes of it."""

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tests.unit.client.matcher import Matcher


@dataclass(frozen=True)
class FlowFiles:
    commands: Path
    fills: Path
    book: Path
    fill_count: int


def write_flow(folder: Path, count: int, seed: int) -> FlowFiles:
    """A flow of `count` live commands after 20 seeds, prices around 100.00 with tick 0.01."""
    rng = random.Random(seed)
    matcher = Matcher()
    commands: list[str] = []
    fills: list[str] = []

    def row(kind: str, order_id: str, side: str, price: Decimal, quantity: Decimal, tif: str = "") -> int:
        commands.append(f"{len(commands) + 1},{len(commands)},{kind},{order_id},{side},{price},{quantity},{tif}")
        return len(commands)

    def price_for(side: str) -> Decimal:
        """Mostly away from the other side, at times across it."""
        away = rng.randint(-8, 40)
        return Decimal(10_000 + (-away if side == "BUY" else away)) / 100

    for number in range(20):
        side = "BUY" if number % 2 else "SELL"
        price = Decimal(10_000 + (-1 if side == "BUY" else 1) * (number + 5)) / 100
        row("SEED", f"5{number:03}", side, price, Decimal(5), "GTC")
        assert not matcher.place(f"5{number:03}", side, price, Decimal(5))
    for number in range(count):
        kind = rng.choice(["NEW"] * 7 + ["CANCEL", "REDUCE", "REPLACE", "REPLACE"]) if matcher.orders else "NEW"
        made = []
        if kind == "NEW":
            side, tif = rng.choice(["BUY", "SELL"]), rng.choice(["GTC", "GTC", "IOC"])
            price, quantity = price_for(side), Decimal(rng.randint(1, 9))
            seq = row(kind, f"9{number:05}", side, price, quantity, tif)
            made = matcher.place(f"9{number:05}", side, price, quantity, tif)
        else:
            order_id = rng.choice(sorted(matcher.orders))
            order = matcher.orders[order_id]
            if kind == "CANCEL":
                seq = row(kind, order_id, order.side, order.price, order.quantity)
                matcher.cancel(order_id)
            elif kind == "REDUCE":
                quantity = Decimal(rng.randint(1, int(order.quantity)))
                seq = row(kind, order_id, order.side, order.price, quantity)
                matcher.reduce(order_id, quantity)
            else:
                price, quantity = price_for(order.side), Decimal(rng.randint(1, 9))
                seq = row(kind, order_id, order.side, price, quantity)
                made = matcher.replace(order_id, price, quantity)
        fills += [f"{seq},{one[0]},{one[1]},{one[2]},{one[3]}" for one in made]
    files = FlowFiles(folder / "aapl-x.commands.csv", folder / "fills.csv", folder / "book.json", len(fills))
    files.commands.write_text("seq,ts_ns,kind,order_id,side,price,quantity,tif\n" + "\n".join(commands) + "\n")
    files.fills.write_text("seq,aggressor_order_id,resting_order_id,price,quantity\n" + "\n".join(fills) + "\n")
    files.book.write_text(json.dumps(_book(matcher)))
    return files


def _book(matcher: Matcher) -> dict[str, object]:
    def side(name: str) -> list[dict[str, object]]:
        found = []
        for price in matcher.prices(name)[:20]:
            quantity, orders = matcher.level(name, price)
            found.append({"price": str(price), "quantity": int(quantity), "orders": orders})
        return found

    counts = {name: sum(order.side == name for order in matcher.orders.values()) for name in ("BUY", "SELL")}
    return {
        "bids": side("BUY"),
        "asks": side("SELL"),
        "order_count": len(matcher.orders),
        "buy_orders": counts["BUY"],
        "sell_orders": counts["SELL"],
        "buy_levels": len(matcher.keys["BUY"]),
        "sell_levels": len(matcher.keys["SELL"]),
        "buy_quantity": int(matcher.total("BUY")),
        "sell_quantity": int(matcher.total("SELL")),
    }
