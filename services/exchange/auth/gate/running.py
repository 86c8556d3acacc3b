"""The gate with all that it needs, and what it does in the background."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from exchange.auth.gate.credentials import Credentials
from exchange.auth.gate.gate import Gate
from exchange.auth.gate.server import GateServer
from exchange.auth.gate.uses import Uses
from exchange.auth.instants import utc
from exchange.auth.keys import ApiKeys
from exchange.auth.metrics import AuthMetrics
from exchange.auth.nonces import PURGE_EVERY_S, Nonces
from exchange.auth.store import Store
from exchange.auth.tokens import TokenMaker
from exchange.runtime.audit.contract import AuditEntry, AuditTrail, SecurityLog
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ServiceError
from exchange.runtime.identity.revocations import Revocations

TURN_S: Final = 1.0
"""How often keys are expired and uses written; an expired key is refused at once all the same."""
KEY_EXPIRED: Final = "api_key.expired"
_ACTOR: Final = "auth-service"


class RunningGate:
    """One a process. Make it, `start`, and `stop` at the end."""

    def __init__(
        self,
        *,
        store: Store,
        keys: ApiKeys,
        tokens: TokenMaker,
        revocations: Revocations,
        security: SecurityLog,
        trail: AuditTrail,
        metrics: AuthMetrics,
        clock: Clock,
        window_ms: int,
        edge_proof: str,
        port: int = 0,
    ) -> None:
        """`store` is its own: signed requests must not wait behind log-ins. Somebody polls `revocations`."""
        self._revocations = revocations
        self._keys = keys
        self._trail = trail
        self._clock = clock
        self.nonces = Nonces(store, clock, window_ms=window_ms)
        self.credentials = Credentials(store, keys.box, revocations, clock)
        self.uses = Uses(keys, security, metrics, clock)
        gate = Gate(
            credentials=self.credentials,
            nonces=self.nonces,
            tokens=tokens,
            uses=self.uses,
            clock=clock,
            window_ms=window_ms,
        )
        self.server = GateServer(gate, edge_proof=edge_proof, ready=self._is_ready, port=port)
        self._background: asyncio.Task[None] | None = None
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("gate")

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self.server.port

    async def start(self) -> int:
        """Serve and return the port. Without a database it refuses everybody. Raises OSError where the port is taken."""
        with contextlib.suppress(ServiceError):
            await self.nonces.begin()
        port = await self.server.start()
        self._background = asyncio.create_task(self._housekeeping())
        return port

    async def stop(self) -> None:
        """Answer what has been asked, write what is to be written, and end."""
        await self.server.stop()
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
        await self.nonces.stop()
        with contextlib.suppress(ServiceError):
            await self.uses.flush()

    async def expire_keys(self) -> int:
        """Revoke the keys whose time is over, record each, and return how many. Raises ServiceError AUTH_UNAVAILABLE."""
        count = 0
        while expired := await self._keys.expire(utc(self._clock)):
            count += len(expired)
            for key in expired:
                cancels = "true" if key.cancel_orders else "false"
                await self._trail.happened(
                    AuditEntry(
                        action=KEY_EXPIRED,
                        actor=_ACTOR,
                        credential=f"api-key {key.api_key}",
                        address="",
                        details=f'{{"user_id":"{key.user_id}","cancel_orders":{cancels}}}',
                        reason="",
                        request_id="",
                    )
                )
        return count

    def _is_ready(self) -> bool:
        return self._revocations.is_current()

    async def _housekeeping(self) -> None:
        purge_at = self._clock.monotonic()
        failing = False
        while True:
            try:
                # After a crash of the database timestamps count again as soon as possible, not only once somebody asks.
                await self.nonces.begin()
                await self.expire_keys()
                await self.uses.flush()
                if self._clock.monotonic() >= purge_at:
                    await self.nonces.purge()
                    purge_at = self._clock.monotonic() + PURGE_EVERY_S
                failing = False
            except ServiceError as error:
                if not failing:
                    self._log.warning("the gate's housekeeping waits for the database", error=str(error))
                failing = True
            await asyncio.sleep(TURN_S)
