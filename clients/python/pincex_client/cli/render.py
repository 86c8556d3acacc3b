"""Tables for people: aligned decimals, green for buys, red for sells."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pincex_client.models import Balance, BusyAccount, Fill, Level, Market, Order, Trade

SIDE_STYLE = {"BUY": "green", "SELL": "red"}
STATUS_STYLE = {"PENDING": "cyan", "PARTIAL": "yellow", "FILLED": "green", "CANCELLED": "dim"}
BAR_WIDTH = 12


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> Table:
    """A plain table: amounts to the right with their points in one line, the rest to the left."""
    gathered = [list(row) for row in rows]
    shown = Table(title=escape(title) or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        cells = [row[index] for row in gathered]
        if any(isinstance(cell, Decimal | int) and not isinstance(cell, bool) for cell in cells):
            # Set to the right here: rich would cut the blanks that keep the points in line.
            texts = aligned(cells, len(name))
            for row, text in zip(gathered, texts, strict=True):
                row[index] = text
            shown.add_column(name.rjust(len(texts[0])), no_wrap=True)
        else:
            shown.add_column(name, no_wrap=True)
    for row in gathered:
        shown.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return shown


def aligned(cells: Sequence[Any], width: int = 0) -> list[str]:
    """Amounts as text of one width, at least `width`, with their points in one line."""
    texts = [amount(cell) if isinstance(cell, Decimal | int) else plain(cell) for cell in cells]
    widest = max((len(text.partition(".")[2]) for text in texts), default=0)
    padded = []
    for text in texts:
        fraction = text.partition(".")[2]
        missing = widest - len(fraction) + (0 if fraction or not widest else 1)
        padded.append(text + " " * missing)
    width = max([width, *(len(text) for text in padded)])
    return [text.rjust(width) for text in padded]


def amount(value: Decimal | int) -> str:
    """Digits as the exchange keeps them, thousands apart."""
    return f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"


def plain(value: Any) -> str:
    """Any other cell."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else ""
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return escape(str(value))


def coloured(text: str, styles: dict[str, str]) -> Text:
    """A word in its colour."""
    return Text(text, style=styles.get(text, ""))


def orders_table(orders: Iterable[Order]) -> Table:
    """Orders, one a line."""
    columns = ("order id", "symbol", "side", "type", "tif", "quantity", "filled", "open", "price", "stop", "status")
    rows = [
        (
            Text(order.order_id),
            order.symbol,
            coloured(order.side, SIDE_STYLE),
            order.order_type,
            order.time_in_force,
            order.quantity,
            order.filled_quantity,
            order.open_quantity,
            order.price,
            order.stop_price,
            coloured(order.status, STATUS_STYLE),
        )
        for order in orders
    ]
    return table(columns, rows)


def order_details(order: Order) -> Table:
    """One order with all that is known of it."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold")
    shown.add_column()
    fields: list[tuple[str, Any]] = [
        ("order id", Text(order.order_id)),
        ("client order id", order.client_order_id),
        ("account", order.account),
        ("symbol", order.symbol),
        ("side", coloured(order.side, SIDE_STYLE)),
        ("type", f"{order.order_type} {order.time_in_force}{' post-only' if order.post_only else ''}"),
        ("status", coloured(order.status, STATUS_STYLE)),
        ("cancel reason", order.cancel_reason),
        ("price", order.price),
        ("stop price", order.stop_price),
        ("quantity", order.quantity),
        ("filled", order.filled_quantity),
        ("open", order.open_quantity),
        ("average price", order.average_price),
        ("fee paid", order.fee_paid if order.filled_quantity else None),
        ("created", order.created_time),
        ("updated", order.updated_time),
        ("expires", order.expire_time),
        ("sequence", order.sequence),
    ]
    for name, value in fields:
        if value is None or value == "":
            continue
        shown.add_row(name, value if isinstance(value, Text) else _cell(value))
    return shown


def _cell(value: Any) -> str:
    return amount(value) if isinstance(value, Decimal) else plain(value)


def fills_table(fills: Iterable[Fill]) -> Table:
    """Own executions."""
    columns = ("time (UTC)", "trade id", "order id", "symbol", "side", "quantity", "price", "fee", "role")
    rows = [
        (
            fill.trade_time,
            fill.trade_id,
            Text(fill.order_id),
            fill.symbol,
            coloured(fill.side, SIDE_STYLE),
            fill.quantity,
            fill.price,
            fill.fee,
            "maker" if fill.is_maker else "taker",
        )
        for fill in fills
    ]
    return table(columns, rows)


def trades_table(trades: Iterable[Trade]) -> Table:
    """The public tape."""
    columns = ("time (UTC)", "trade id", "symbol", "taker", "quantity", "price")
    rows = [
        (
            trade.trade_time,
            trade.trade_id,
            trade.symbol,
            coloured(trade.taker_side, SIDE_STYLE),
            trade.quantity,
            trade.price,
        )
        for trade in trades
    ]
    return table(columns, rows)


def balances_table(balances: Iterable[Balance]) -> Table:
    """Balances; each asset has its own decimals, so each keeps its digits."""
    rows = [(balance.asset, balance.available, balance.held, balance.total) for balance in balances]
    return table(("asset", "available", "held", "total"), rows)


def busy_accounts_table(accounts: Iterable[BusyAccount]) -> Table:
    """Accounts that placed many orders lately."""
    rows = [(one.account, one.order_count, one.cancel_count, one.fill_count) for one in accounts]
    return table(("account", "placed", "cancelled", "filled"), rows)


def markets_table(markets: Iterable[Market]) -> Table:
    """Markets and their rules."""
    columns = ("symbol", "base", "quote", "tick", "lot", "last price", "maker ppm", "taker ppm", "band ppm", "mode")
    rows = [
        (
            market.symbol,
            market.base_asset,
            market.quote_asset,
            market.tick_size,
            market.lot_size,
            market.last_price,
            market.maker_fee_ppm,
            market.taker_fee_ppm,
            market.price_band_ppm,
            Text(market.mode, style="green" if market.mode == "OPEN" else "bold yellow"),
        )
        for market in markets
    ]
    return table(columns, rows)


def ladder(symbol: str, bids: Sequence[Level], asks: Sequence[Level], *, footer: str = "") -> Group:
    """A book as a ladder: asks above, bids below, the spread between, a bar for each quantity."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("orders", "bid", "price", "ask", "orders"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True, width=BAR_WIDTH)
    levels = [*reversed(asks), *bids]
    largest = max((level.quantity for level in levels), default=Decimal(0))
    prices = aligned([level.price for level in levels])
    quantities = aligned([level.quantity for level in levels])
    for index, level in enumerate(levels):
        price, quantity = prices[index], quantities[index]
        width = int(level.quantity * BAR_WIDTH / largest) if largest else 0
        count = str(level.order_count)
        if index < len(asks):
            shown.add_row("", "", f"[red]{price}[/red]", quantity, count, Text("█" * width, style="red"))
        else:
            shown.add_row(count, quantity, f"[green]{price}[/green]", "", "", Text("█" * width, style="green"))
        if index == len(asks) - 1 and bids:
            spread = amount(asks[0].price - bids[0].price)
            shown.add_row("", "", f"[dim]spread {spread}[/dim]", "", "", "")
    return Group(Text(symbol, style="bold"), shown, Text(footer, style="dim"))
