"""AccountService: balances and limits of the calling account, and for operators: credit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from exchange.runtime import paging
from exchange.runtime.drain import Drain
from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.notices import HEARTBEAT_S, end_message, set_time
from exchange.runtime.request import request_context
from exchange.trading.core import commands as cmd
from exchange.trading.core.model import Balance
from exchange.trading.feeds.balances import BalanceCopy
from exchange.trading.feeds.hub import Hub
from exchange.trading.limits.rates import OrderRates
from exchange.trading.service import requests
from exchange.trading.service.account_reader import follow_account
from exchange.trading.service.desk import Desk
from exchange.trading.service.limits import limits_message
from exchange.trading.service.messages import balance_message
from exchange.trading.service.streaming import AccountStreams
from exchange.trading.service.units import amount_units
from pincex.trading.v1 import account_service_pb2 as pb
from pincex.trading.v1 import account_service_pb2_grpc, types_pb2


class AccountService(account_service_pb2_grpc.AccountServiceServicer):
    """See `proto/pincex/trading/v1/account_service.proto`."""

    def __init__(self, desk: Desk, hub: Hub, drain: Drain, rates: OrderRates) -> None:
        self._desk = desk
        self._rates = rates
        self._hub = hub
        self._drain = drain
        self._open = AccountStreams()

    async def ListBalances(self, request: pb.ListBalancesRequest, context: Any) -> pb.ListBalancesResponse:
        """All assets the account has ever held, by code."""
        size = paging.page_size(request.page_size)
        desk = self._desk
        await desk.reach(request.min_sequence)
        account = request_context(context).principal.account
        after = paging.read_token(request.page_token, account)
        found = [message for message in self._balances(account) if message.asset > after]
        response = pb.ListBalancesResponse(balances=found[:size])
        if len(found) > size:
            response.next_page_token = paging.make_token(found[size - 1].asset, account)
        await desk.settle()
        return response

    def _balances(self, account: str) -> list[types_pb2.Balance]:
        state = self._desk.state
        holder = state.accounts.get(account)
        if holder is None:
            return []
        rows = [(state.assets[asset], balance) for asset, balance in holder.balances.items()]
        rows.sort(key=lambda row: row[0].code)
        return [balance_message(account, asset, balance, state.sequence) for asset, balance in rows]

    async def GetLimits(self, request: pb.GetLimitsRequest, context: Any) -> pb.Limits:
        """What the caller may do, and how much of it is in use."""
        await self._desk.reach(0)
        message = limits_message(self._desk, self._rates, request_context(context).principal)
        await self._desk.settle()
        return message

    async def CreditAccount(self, request: pb.CreditAccountRequest, context: Any) -> types_pb2.Balance:
        """Operators: add money to an account."""
        account = requests.account_name(request.account)
        if not request.request_id:
            raise requests.refuse(ErrorReason.FIELD_REQUIRED, "request_id")
        desk = self._desk
        asset = await desk.find(lambda: desk.asset(request.asset))
        amount = amount_units(request.amount, asset.decimals, "amount")
        request_time = (
            requests.nanoseconds(request.request_time, "request_time") if request.HasField("request_time") else 0
        )
        request_id = requests.client_id(request.request_id, "request_id")
        await desk.execute(
            cmd.credit(account, asset.index, amount, request_id=request_id, request_time_ns=request_time)
        )
        holder = desk.state.accounts[account]
        balance = holder.balances.get(asset.index, Balance())
        message = balance_message(account, asset, balance, desk.state.sequence)
        await desk.settle()
        return message

    async def StreamBalances(self, request: pb.StreamBalancesRequest, context: Any) -> AsyncIterator[pb.BalanceUpdate]:
        """All balances at once, then each that changes."""
        account = request_context(context).principal.account
        with self._open.one(account):
            async with aclosing(self._balance_updates(account)) as updates:
                async for update in updates:
                    yield update

    async def _balance_updates(self, account: str) -> AsyncGenerator[pb.BalanceUpdate, None]:
        desk = self._desk
        state = desk.state
        sequence = state.sequence
        copy = BalanceCopy(state, account)
        first = pb.BalanceUpdate(sequence=sequence, snapshot=pb.BalanceList(balances=self._balances(account)))
        await desk.settle()
        yield first
        last = sequence
        async for command in follow_account(self._hub, account, sequence, HEARTBEAT_S):
            update = pb.BalanceUpdate(prev_sequence=last)
            if command is None:
                update.heartbeat.head_sequence = self._hub.head_sequence
                set_time(update.heartbeat.server_time, desk.clock.time_ns())
            else:
                state = desk.state
                changed = copy.apply(command.events, state.markets)
                if not changed:
                    continue
                last = command.sequence
                for asset in changed:
                    balance = balance_message(account, state.assets[asset], copy.balances[asset], last)
                    update.changed.balances.append(balance)
            update.sequence = last
            yield update
        if self._drain.is_set():
            notice = pb.BalanceUpdate(sequence=last, prev_sequence=last)
            remaining = self._drain.time_remaining() or 0.0
            set_time(notice.drain.deadline_time, desk.clock.time_ns() + int(remaining * 1e9))
            yield notice
        reason = self._hub.end_reason or ErrorReason.DRAINING
        yield pb.BalanceUpdate(sequence=last, prev_sequence=last, end=end_message(reason))
