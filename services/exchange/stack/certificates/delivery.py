"""Hands the certificates in use to Envoy, and hands over what replaces them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from exchange.stack.certificates.description import (
    chain_pem,
    chain_problem,
    describe,
    key_pem,
    key_problem,
    read_chain,
    read_key,
    time_problem,
)
from exchange.stack.edge import tls
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# How often the files are looked at. They are small, and a renewal is not in a hurry.
LOOK_INTERVAL_S = 1.0
# How often it is asked whether one of ours is due.
RENEW_INTERVAL_S = 3_600.0


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Where a certificate (with its chain) and its private key are; it may be one file."""

    certificate: Path
    key: Path


class Delivery:
    """Keeps Envoy's secrets equal to files, by their content: however an operator replaces them, they are found.

    What cannot be used is not handed over: the edge goes on with what it has, and `report` says so once.
    """

    def __init__(
        self,
        secrets_dir: Path,
        pairs: Mapping[str, PairFiles],
        authorities: Mapping[str, Path],
        renew: Callable[[], object],
        report: Callable[[dict[str, object]], None],
    ) -> None:
        """Both mappings are by the name of the secret; `renew` renews what is due of ours, and may raise StackError."""
        self._secrets_dir = secrets_dir
        self._pairs = pairs
        self._authorities = authorities
        self._renew = renew
        self._report = report
        self._complaints: dict[str, str] = {}

    def begin(self) -> None:
        """Hands over everything. Raises StackError where something cannot be used."""
        for name in (*self._pairs, *self._authorities):
            self._hand_over(name)

    async def follow(self) -> None:
        """Hands over whatever changes, until it is cancelled."""
        renew_at = time.monotonic() + RENEW_INTERVAL_S
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            if time.monotonic() >= renew_at:
                await asyncio.to_thread(self._try, "ours", self._renew)
                renew_at = time.monotonic() + RENEW_INTERVAL_S
            for name in (*self._pairs, *self._authorities):
                if await asyncio.to_thread(self._try, name, partial(self._hand_over, name)):
                    self._say(f"certificate {name} is replaced: new connections get it")

    def _try(self, name: str, action: Callable[[], object]) -> object:
        """What the action answers, None where it failed: what fails is said once."""
        try:
            found = action()
        # A full disk is no reason to stop an exchange.
        except (StackError, OSError) as error:
            if self._complaints.get(name) != str(error):
                self._complaints[name] = str(error)
                self._say(f"certificate {name} stays as it was: {error}")
            return None
        self._complaints.pop(name, None)
        return found

    def _hand_over(self, name: str) -> bool:
        pair = self._pairs.get(name)
        if pair is None:
            authorities = chain_pem(read_chain(self._authorities[name]))
            return tls.write_authority(self._secrets_dir, name, authorities)
        chain, key = read_chain(pair.certificate), read_key(pair.key)
        now = datetime.now(UTC)
        # Without days to spare: an operator decides when to renew, and is told by `pincex certs check`.
        problem = time_problem(chain[0], now, 0) or chain_problem(chain, None) or key_problem(chain[0], key)
        if problem is not None:
            raise StackError(f"{pair.certificate}: {describe(chain[0]).subject} {problem}")
        return tls.write_certificate(self._secrets_dir, name, chain_pem(chain), key_pem(key))

    def _say(self, text: str) -> None:
        self._report({"event": "certificates", "text": text})
