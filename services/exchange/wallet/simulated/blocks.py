"""The simulated chain grows by itself: one block after the other, made by the instance that drives everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exchange.wallet.simulated.network import SimulatedNetwork


class Blocks:
    """A driver of the worker."""

    name = "simulated blocks"

    def __init__(self, network: SimulatedNetwork, every_s: float) -> None:
        self._network = network
        self.every_s = every_s

    async def drive(self) -> bool:
        """One block; the next one comes after the pause."""
        await self._network.grow()
        return False
