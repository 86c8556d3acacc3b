"""Which withdrawals go out without an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

BY_POLICY: Final = "policy"
"""Who has approved what needed no operator. No user is named so: their ids are numbers."""


class ApprovalPolicy:
    """`by_itself` names the most of an asset that needs nobody; an asset that it does not name always needs somebody."""

    def __init__(self, by_itself: Mapping[str, Decimal]) -> None:
        self._by_itself = by_itself

    def needs_operator(self, asset: str, amount: int, decimals: int) -> bool:
        """Whether an amount in smallest units waits for an operator."""
        most = self._by_itself.get(asset)
        return most is None or amount > most.scaleb(decimals)
