"""Pairs the two sides of each trade, as the account's events tell them, into fills of the recorded flow. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pincex_client.feeds import trade_place
from pincex_client.models import Fill
from pincex_client.replay.flow import FlowFill


@dataclass(slots=True)
class FillLog:
    """Executions by trade, both sides; hearing of one twice changes nothing."""

    makers: dict[str, Fill] = field(default_factory=dict)
    takers: dict[str, Fill] = field(default_factory=dict)

    def add(self, fill: Fill) -> None:
        """Take in one side of a trade."""
        (self.makers if fill.is_maker else self.takers)[fill.trade_id] = fill

    def add_all(self, fills: Iterable[Fill]) -> None:
        """Take in many."""
        for fill in fills:
            self.add(fill)

    def __len__(self) -> int:
        """Return how many trades are known by either side."""
        return len(self.makers.keys() | self.takers.keys())

    def fills(self, prefix: str, seq_of_sequence: Mapping[int, int]) -> list[FlowFill]:
        """Return the fills in order of execution, in terms of the recorded flow.

        `prefix` is what the run put before each recorded order id to make the client order id; `seq_of_sequence` maps
        engine sequences to recorded commands. A side that was never told is `?`, an unknown command -1: both can
        only differ from what is recorded.
        """
        found: list[FlowFill] = []
        for trade_id in sorted(self.makers.keys() | self.takers.keys(), key=trade_place):
            maker, taker = self.makers.get(trade_id), self.takers.get(trade_id)
            known = taker or maker
            assert known is not None, "the id is from one of the two"
            found.append(
                FlowFill(
                    seq_of_sequence.get(known.sequence, -1),
                    recorded_id(taker, prefix),
                    recorded_id(maker, prefix),
                    known.price,
                    known.quantity,
                )
            )
        return found


def recorded_id(fill: Fill | None, prefix: str) -> str:
    """The recorded order id behind one side of a trade; `?` where that side is missing."""
    if fill is None:
        return "?"
    return fill.client_order_id.removeprefix(prefix) or f"order {fill.order_id}"
