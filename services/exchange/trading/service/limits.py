"""What callers and operators are told of limits, and of who is busy."""

from __future__ import annotations

from typing import Final

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason
from exchange.runtime.principal import Principal
from exchange.trading.limits.activity import MAX_WINDOW_S, STEP_S, Activity, Busy
from exchange.trading.limits.rates import OrderRates
from exchange.trading.limits.tiers import BURST_SECONDS, tier_of
from exchange.trading.service import requests
from exchange.trading.service.desk import Desk
from pincex.trading.v1 import account_service_pb2, admin_service_pb2

DEFAULT_WINDOW_S: Final = 300
DEFAULT_MORE_THAN: Final = 100


def limits_message(desk: Desk, rates: OrderRates, principal: Principal) -> account_service_pb2.Limits:
    """The limits of who asks, and what of them is in use in the core as it stands."""
    tier = tier_of(principal)
    state = desk.state
    per_second = min(filter(None, (tier.orders_per_second, principal.max_orders_per_second)), default=0)
    message = account_service_pb2.Limits(
        account=principal.account,
        tier=tier.name,
        api_key=principal.api_key,
        orders_per_second=per_second,
        orders_burst=per_second * BURST_SECONDS,
        orders_left=rates.left(principal),
        max_open_orders=tier.max_open_orders or state.default_max_open_orders,
        sequence=state.sequence,
    )
    account = desk.account(principal.account)
    if account is not None:
        message.open_orders = len(account.orders)
        if account.max_open_orders >= 0:
            message.max_open_orders = account.max_open_orders
    if principal.max_open_orders:
        message.key_max_open_orders = principal.max_open_orders
        message.key_open_orders = account.open_by_key.get(principal.api_key, 0) if account is not None else 0
    return message


def busy_accounts(
    request: admin_service_pb2.ListBusyAccountsRequest, activity: Activity
) -> admin_service_pb2.ListBusyAccountsResponse:
    """One page of accounts that placed more orders than asked about. Raises ServiceError INVALID_FIELD,
    INVALID_PAGE_TOKEN.
    """
    size = paging.page_size(request.page_size)
    window = _window(request)
    more_than = request.more_than or DEFAULT_MORE_THAN
    filters = (window, more_than)
    # The account names itself, since counts change from one page to the next.
    count, _, name = paging.read_token(request.page_token, *filters).partition(" ")
    after = (-int(count), name) if count else None
    found = [row for row in activity.busy(window, more_than) if after is None or _position(row) > after]
    response = admin_service_pb2.ListBusyAccountsResponse()
    for row in found[:size]:
        response.accounts.add(
            account=row.account, order_count=row.placed, cancel_count=row.cancelled, fill_count=row.filled
        )
    if len(found) > size:
        last = found[size - 1]
        response.next_page_token = paging.make_token(f"{last.placed} {last.account}", *filters)
    response.seen.FromNanoseconds(activity.seen_ns(window))
    return response


def _position(row: Busy) -> tuple[int, str]:
    return (-row.placed, row.account)


def _window(request: admin_service_pb2.ListBusyAccountsRequest) -> int:
    """Seconds of the window."""
    if not request.HasField("window"):
        return DEFAULT_WINDOW_S
    window = request.window
    if window.nanos or not STEP_S <= window.seconds <= MAX_WINDOW_S or window.seconds % STEP_S:
        raise requests.refuse(
            ErrorReason.INVALID_FIELD,
            "window",
            f"window must lie between {STEP_S} and {MAX_WINDOW_S} seconds, in steps of {STEP_S}",
            f"{window.seconds}.{window.nanos:09}s",
        )
    return window.seconds
