"""The body of a signed gRPC call: the signature covers its hash, and the body is compared with that hash here.

The edge verifies signatures before it has seen the body, so it signs for the header alone; it takes the header away where
it has compared the body itself (REST).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import Metadata

CONTENT_HASH_KEY: Final = "x-pincex-content-sha256"
STREAM: Final = "stream"
"""What streaming methods carry: their messages are not known when the call begins."""


def check_content(metadata: Metadata, raw: bytes | None, *, streaming: bool) -> None:
    """Compare the request, as it was sent, with every content hash of the call. `raw` is None where requests are a stream.

    Raises ServiceError SIGNATURE_REFUSED.
    """
    for key, value in metadata:
        if key != CONTENT_HASH_KEY:
            continue
        if streaming and value == STREAM:
            continue
        given = value.encode() if isinstance(value, str) else value
        if raw is None or not hmac.compare_digest(hashlib.sha256(raw).hexdigest().encode(), given):
            raise ServiceError(
                ErrorReason.SIGNATURE_REFUSED, f"{CONTENT_HASH_KEY} is not the hash of the request that came with it"
            )
