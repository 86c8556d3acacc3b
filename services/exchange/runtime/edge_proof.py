"""How the auth service's gate knows that Envoy asks, and not some other process of this machine.

Envoy sends a fixed header; its value is derived from JWT_SECRET, which both the stack and the gate have. From outside the
header is removed, as all headers of the inside.
"""

import hmac
from typing import Final

from exchange.runtime.config import Secret

EDGE_PROOF_KEY: Final = "x-pincex-edge"
PROTOCOL_KEY: Final = "x-pincex-protocol"
"""What Envoy asks about: PROTOCOL_GRPC or PROTOCOL_REST. In the place of the content type, which it must not send: it would
take its own question for a gRPC call, and answer it, where there is no gate, with the HTTP status 200, which lets in.
"""
PROTOCOL_GRPC: Final = "grpc"
PROTOCOL_REST: Final = "rest"
_PURPOSE: Final = b"pincex-edge-gate-v1"


def edge_proof(secret: Secret) -> str:
    """The header's value: 64 hex digits that tell nothing about the secret."""
    return hmac.digest(secret.reveal().encode(), _PURPOSE, "sha256").hex()
