"""Money that goes out, as the contract shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.domain.decimals import format_units
from exchange.runtime.fields import timestamp
from exchange.wallet.withdrawals import CANCELLED, REJECTED
from pincex.wallet.v1 import types_pb2, wallet_service_pb2

if TYPE_CHECKING:
    from exchange.wallet.address_list import Address
    from exchange.wallet.limits import Limit
    from exchange.wallet.transfers import Transfer
    from exchange.wallet.withdrawals import Withdrawal


def withdrawal_message(found: Withdrawal) -> types_pb2.Withdrawal:
    """A withdrawal as it stands."""
    return types_pb2.Withdrawal(
        withdrawal_id=found.withdrawal_id,
        account=found.account,
        asset=found.asset,
        amount=format_units(found.amount, found.decimals),
        fee=format_units(found.fee, found.decimals),
        network=found.network,
        address=found.address,
        status=types_pb2.WithdrawalStatus.Value(found.status),
        problem=found.problem,
        transaction_id=found.transaction_id,
        # Who cancelled or refused it has approved nothing.
        approved_by="" if found.ending in {CANCELLED, REJECTED} else found.decided_by,
        created_time=timestamp(found.created_at),
        updated_time=timestamp(found.updated_at),
        hold_sequence=found.hold_sequence,
        final_sequence=found.final_sequence,
        request_id=found.request_id,
        confirmations=found.confirmations,
        required_confirmations=found.required_confirmations,
    )


def address_message(found: Address) -> types_pb2.WithdrawalAddress:
    """An address of the list."""
    return types_pb2.WithdrawalAddress(
        address_id=found.address_id,
        asset=found.asset,
        network=found.network,
        address=found.address,
        label=found.label,
        usable_time=timestamp(found.usable_at),
        created_time=timestamp(found.created_at),
    )


def transfer_message(found: Transfer) -> types_pb2.Transfer:
    """A transfer that was carried out."""
    return types_pb2.Transfer(
        transfer_id=found.transfer_id,
        account=found.account,
        to_account=found.to_account,
        asset=found.asset,
        amount=format_units(found.amount, found.decimals),
        sequence=found.sequence,
        created_time=timestamp(found.created_at),
        request_id=found.request_id,
    )


def limit_message(limit: Limit) -> wallet_service_pb2.WithdrawalLimit:
    """What is left of an asset today."""
    return wallet_service_pb2.WithdrawalLimit(
        asset=limit.asset,
        daily_limit=format_units(limit.daily, limit.decimals),
        used=format_units(limit.used, limit.decimals),
        left=format_units(limit.left, limit.decimals),
    )
