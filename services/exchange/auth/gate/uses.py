"""What is told of each use of a key or certificate: one line of the log, and when a key was used last."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import structlog

from exchange.auth.instants import utc
from exchange.auth.keys import ApiKeys
from exchange.auth.metrics import AuthMetrics
from exchange.runtime.audit.contract import (
    API_KEY_REFUSED,
    API_KEY_USED,
    CERTIFICATE_REFUSED,
    OK,
    SIGNATURE_REFUSED,
    SecurityEvent,
    SecurityLog,
)
from exchange.runtime.clock import Clock

# Keys whose last use waits to be written; beyond it a use is told by the log alone.
MAX_WAITING: Final = 10_000
_SIGNATURE_REASONS: Final = frozenset({"SIGNATURE_REFUSED", "TIMESTAMP_OUT_OF_WINDOW", "NONCE_REUSED"})


class Uses:
    """Tells uses, refused ones too. Never signatures, nonces, bodies or queries."""

    def __init__(self, keys: ApiKeys, security: SecurityLog, metrics: AuthMetrics, clock: Clock) -> None:
        self._keys = keys
        self._metrics = metrics
        self._security = security
        self._clock = clock
        self._waiting: dict[str, datetime] = {}
        self._minute = -1
        self._noted: set[tuple[str, str]] = set()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("gate")

    def key(self, api_key: str, user: str, action: str, address: str, request_id: str, outcome: str) -> None:
        """One use of a key: `outcome` is OK or the reason of the refusal. `user` is empty where nothing is proven."""
        self._metrics.judged.labels("key", outcome).inc()
        # Under `key`: the log cuts out what stands under `api_key`, and the public id is what one searches for.
        if outcome == OK:
            self._log.info(
                "api key used", key=api_key, user=user, action=action, address=address, request_id=request_id
            )
            self._used(api_key, user, action, address, request_id)
            return
        self._log.warning(
            "api key refused", key=api_key, action=action, address=address, request_id=request_id, outcome=outcome
        )
        kind = SIGNATURE_REFUSED if outcome in _SIGNATURE_REASONS else API_KEY_REFUSED
        self._security.note(SecurityEvent(kind, outcome, user, f"api-key {api_key}", address, action, request_id))

    def certificate(self, subject: str, user: str, action: str, address: str, request_id: str, outcome: str) -> None:
        """One use of a client certificate, in the same way."""
        self._metrics.judged.labels("certificate", outcome).inc()
        if outcome == OK:
            self._log.info(
                "certificate used", subject=subject, user=user, action=action, address=address, request_id=request_id
            )
            return
        self._log.warning(
            "certificate refused",
            subject=subject,
            action=action,
            address=address,
            request_id=request_id,
            outcome=outcome,
        )
        credential = f"certificate {subject}"
        self._security.note(SecurityEvent(CERTIFICATE_REFUSED, outcome, user, credential, address, action, request_id))

    async def flush(self) -> None:
        """Write when keys were used last. Raises ServiceError AUTH_UNAVAILABLE; then it waits for the next time."""
        if not self._waiting:
            return
        uses, self._waiting = self._waiting, {}
        try:
            await self._keys.store_uses(uses)
        except BaseException:
            self._waiting = {**uses, **self._waiting}
            raise

    def _used(self, api_key: str, user: str, action: str, address: str, request_id: str) -> None:
        """In each minute, a key's first use from an address goes into the security log, and its time to the table."""
        now = utc(self._clock)
        if now.minute != self._minute:
            self._minute = now.minute
            self._noted.clear()
        if (api_key, address) in self._noted or len(self._noted) >= MAX_WAITING:
            return
        self._noted.add((api_key, address))
        self._waiting[api_key] = now
        credential = f"api-key {api_key}"
        self._security.note(SecurityEvent(API_KEY_USED, OK, user, credential, address, action, request_id))
