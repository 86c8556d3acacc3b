"""How the auth service's gate knows that Envoy asks, and not some other process of this machine.

Envoy sends a fixed header; its value is derived from JWT_SECRET, which both the stack and the gate have. From outside the
header is removed, as all headers of the inside.
"""

import hmac
from typing import Final

from exchange.runtime.config import Secret

EDGE_PROOF_KEY: Final = "x-pincex-edge"
_PURPOSE: Final = b"pincex-edge-gate-v1"


def edge_proof(secret: Secret) -> str:
    """The header's value: 64 hex digits that tell nothing about the secret."""
    return hmac.digest(secret.reveal().encode(), _PURPOSE, "sha256").hex()
