"""Deposits, networks and the wallet's state as the contract has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.domain.decimals import format_units
from exchange.domain.symbols import is_account
from exchange.runtime.errors import ErrorReason, reject
from exchange.runtime.fields import timestamp
from pincex.wallet.v1 import types_pb2, wallet_admin_service_pb2, wallet_service_pb2

if TYPE_CHECKING:
    from exchange.wallet.deposits import Deposit
    from exchange.wallet.freezes import Freeze
    from exchange.wallet.networks import Network
    from exchange.wallet.status import Status


def deposit_message(deposit: Deposit) -> types_pb2.Deposit:
    """One deposit as it stands."""
    message = types_pb2.Deposit(
        deposit_id=str(deposit.deposit_id),
        account=deposit.account,
        asset=deposit.asset,
        amount=format_units(deposit.amount, deposit.decimals),
        network=deposit.network,
        address=deposit.address,
        transaction_id=deposit.transaction_id,
        status=types_pb2.DepositStatus.Value(deposit.status),
        confirmations=deposit.confirmations,
        required_confirmations=deposit.required_confirmations,
        sequence=deposit.sequence or 0,
        seen_time=timestamp(deposit.seen_at),
    )
    if deposit.reversal is not None:
        message.recovered_amount = format_units(deposit.recovered, deposit.decimals)
    if deposit.credited_at is not None:
        message.credited_time.CopyFrom(timestamp(deposit.credited_at))
    return message


def network_message(network: Network, *, withdrawals_open: bool) -> wallet_service_pb2.Network:
    """One asset on one network."""
    return wallet_service_pb2.Network(
        asset=network.asset,
        network=network.network,
        required_confirmations=network.required_confirmations,
        withdrawal_fee=format_units(network.fee, network.decimals),
        least_withdrawal=format_units(network.least, network.decimals),
        deposits_open=True,
        withdrawals_open=withdrawals_open,
    )


def status_message(status: Status) -> wallet_admin_service_pb2.WalletStatus:
    """How the wallet stands."""
    message = wallet_admin_service_pb2.WalletStatus(
        withdrawals_stopped=status.withdrawals_stopped,
        problem=status.problem,
        frozen_accounts=status.frozen_accounts,
    )
    for state in status.states:
        message.states.add(state=state.state, count=state.count, oldest_time=timestamp(state.oldest))
    for held in status.custody:
        message.custody.add(network=held.network, asset=held.asset, amount=held.amount)
    return message


def freeze_message(freeze: Freeze) -> wallet_admin_service_pb2.AccountFreeze:
    """Whether an account is frozen."""
    return wallet_admin_service_pb2.AccountFreeze(account=freeze.account, frozen=freeze.frozen, reason=freeze.reason)


def account_name(text: str, field: str = "account") -> str:
    """The name of a client's account. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field=field)
    if not is_account(text):
        reject(ErrorReason.INVALID_FIELD, field=field, value=text)
    return text
