"""What operators ask of all instances together: compare, hand over, and whether all know the newer rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.service_tls import ServiceTls
from exchange.trading.replication.messages import LinkLost
from exchange.trading.replication.replica import Replica
from exchange.trading.service.desk import Desk
from exchange.trading.service.leader_calls import put_through
from pincex.trading.v1 import admin_replicas_pb2 as replicas_pb


class ReplicaDesk:
    """The operators' way to this instance's replica; `replica` is None before it lives."""

    def __init__(self, desk: Desk, replica: Callable[[], Replica | None], tls: ServiceTls | None = None) -> None:
        self._desk = desk
        self._tls = tls
        self._replica_now = replica

    @property
    def _replica(self) -> Replica:
        replica = self._replica_now()
        if replica is None:
            raise ServiceError(ErrorReason.NOT_READY)
        return replica

    async def compare(self, symbol: str) -> replicas_pb.CompareReplicasResponse:
        """State and book hashes of all instances at one sequence. Raises ServiceError NOT_READY where no leader answers,
        UNKNOWN_SYMBOL.
        """
        if symbol:
            symbol = (await self._desk.find(lambda: self._desk.market(symbol)))[0].symbol
        try:
            found = await self._replica.compare(symbol)
        except LinkLost as lost:
            raise ServiceError(ErrorReason.NOT_READY, f"nothing to compare: {lost}") from None
        response = replicas_pb.CompareReplicasResponse(sequence=found.sequence)
        for state in found.states:
            replica = state.replica
            response.replicas.add(
                instance=replica.instance,
                role=replica.role,
                sequence=replica.sequence,
                state_hash=state.state_hash,
                book_hash=state.book_hash,
                version=replica.version,
                core_mode=replica.core_mode,
                supported_rules_version=replica.supported_rules_version,
            )
        answered = {(state.state_hash, state.book_hash) for state in found.states if state.state_hash}
        response.identical = len(answered) == 1
        return response

    @property
    def leads(self) -> bool:
        """Whether this instance leads now."""
        return self._desk.sequencer is not None

    async def ask_leader(self, method: str, request: Any, context: Any) -> Any:
        """The leader's answer to this call of TradingAdminService; see `put_through`."""
        return await put_through(method, request, context, self._replica.replicas, self._tls)

    async def hand_over(self) -> replicas_pb.HandOverLeadershipResponse:
        """Have a follower lead. Raises ServiceError NOT_READY where this instance does not lead, or nobody follows."""
        sequencer = self._desk.sequencer
        if sequencer is None:
            raise ServiceError(ErrorReason.NOT_READY, "this instance does not lead")
        if not await self._replica.hand_over():
            raise ServiceError(ErrorReason.NOT_READY, "no follower is there to take leadership")
        return replicas_pb.HandOverLeadershipResponse(
            instance=self._desk.instance, sequence=sequencer.committed_sequence
        )

    def check_rules(self, version: int) -> None:
        """Raise ServiceError RULES_NOT_SUPPORTED where an instance does not know the rules; NOT_READY where this one does not
        lead: the leader alone knows all.
        """
        if not self.leads:
            raise ServiceError(ErrorReason.NOT_READY, "this instance does not lead")
        for replica in self._replica.replicas():
            if version > replica.supported_rules_version:
                raise ServiceError(
                    ErrorReason.RULES_NOT_SUPPORTED,
                    f"{replica.instance} knows the rules up to {replica.supported_rules_version} only",
                    metadata={"instance": replica.instance, "supported_rules_version": replica.supported_rules_version},
                )
