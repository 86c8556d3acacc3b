"""The gate's HTTP server, as Envoy's `ext_authz` asks it: the original request, without its body for gRPC.

200 lets a request on, with the token in `authorization`; every other status is what the client gets. REST clients get
`google.rpc.Status` as JSON, gRPC clients the same in `grpc-status-details-bin`.
"""

from __future__ import annotations

import base64
import hmac
import math
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from google.protobuf import json_format
from multidict import CIMultiDictProxy

from exchange.auth import signatures
from exchange.auth.gate.gate import CertifiedRequest, Gate, SignedRequest
from exchange.runtime.client_address import FORWARDED_KEY, normal_address
from exchange.runtime.edge_proof import EDGE_PROOF_KEY, PROTOCOL_GRPC, PROTOCOL_KEY
from exchange.runtime.errors import STATUS_DETAILS_KEY, ErrorReason, ServiceError
from exchange.runtime.http_server import LOOPBACK
from exchange.runtime.request import REQUEST_ID_KEY, accepted_request_id

READY_PATH: Final = "/readyz"
CERTIFICATE_HEADER: Final = "x-forwarded-client-cert"
REMOVE_HEADER: Final = "x-envoy-auth-headers-to-remove"

# The edge's own limit is 32 KiB; for bodies both have 1 MiB.
MAX_LINE_BYTES: Final = 40 * 1024
_SHUTDOWN_SECONDS: Final = 1.0
_SIGNING_HEADERS: Final = (
    signatures.API_KEY_HEADER,
    signatures.TIMESTAMP_HEADER,
    signatures.NONCE_HEADER,
    signatures.SIGNATURE_HEADER,
)
_REMOVED_OF_GRPC: Final = ",".join((*_SIGNING_HEADERS, CERTIFICATE_HEADER))
_REMOVED_OF_REST: Final = f"{_REMOVED_OF_GRPC},{signatures.CONTENT_HASH_HEADER}"


class GateServer:
    """Serves the gate on one loopback port."""

    def __init__(self, gate: Gate, *, edge_proof: str, ready: Callable[[], bool], port: int = 0) -> None:
        """`edge_proof` is what Envoy sends in EDGE_PROOF_KEY; `port` 0 takes any free one.

        While it is not `ready`, Envoy asks another instance, if there is one.
        """
        self._gate = gate
        self._ready = ready
        self._edge_proof = edge_proof.encode()
        self._wanted_port = port
        server = web.Server(
            self._answer,
            # The signature is over the bytes that were sent.
            auto_decompress=False,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("gate")
        self.port = 0

    async def start(self) -> int:
        """Bind, serve and return the port. Raises OSError where the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self._wanted_port).start()
        self.port = self._runner.addresses[0][1]
        return self.port

    async def stop(self) -> None:
        """Close the port and what is open on it."""
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        if request.raw_path == READY_PATH and EDGE_PROOF_KEY not in headers:
            return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="not ready\n")
        grpc = headers.get(PROTOCOL_KEY) == PROTOCOL_GRPC
        request_id = accepted_request_id(headers.get(REQUEST_ID_KEY))
        try:
            token = await self._admit(request, request_id, grpc=grpc)
        except ServiceError as error:
            return _refusal(error, grpc=grpc)
        except Exception as error:  # noqa: BLE001 - closed, whatever it is
            self._log.error("the gate failed", exc_info=error, request_id=request_id)
            return _refusal(ServiceError(ErrorReason.INTERNAL), grpc=grpc)
        if token is None:
            return web.Response()
        removed = _REMOVED_OF_GRPC if grpc else _REMOVED_OF_REST
        return web.Response(headers={"authorization": f"Bearer {token}", REMOVE_HEADER: removed})

    async def _admit(self, request: web.BaseRequest, request_id: str, *, grpc: bool) -> str | None:
        """The token; None where the request goes on as it is. Raises ServiceError."""
        headers = request.headers
        self._check_edge(headers)
        address = _address(headers)
        path = request.raw_path
        if signatures.API_KEY_HEADER in headers:
            return await self._gate.admit_signed(
                SignedRequest(
                    method=request.method,
                    path=path,
                    body=b"" if grpc else await _body(request),
                    content_hash=_one(headers, signatures.CONTENT_HASH_HEADER) if grpc else None,
                    api_key=_one(headers, signatures.API_KEY_HEADER),
                    timestamp=_one(headers, signatures.TIMESTAMP_HEADER),
                    nonce=_one(headers, signatures.NONCE_HEADER),
                    signature=_one(headers, signatures.SIGNATURE_HEADER),
                    address=address,
                    request_id=request_id,
                )
            )
        if "authorization" in headers:
            # Whoever logged in may call on the mTLS listener too; the token is verified behind this.
            return None
        forwarded = _one(headers, CERTIFICATE_HEADER)
        return await self._gate.admit_certified(CertifiedRequest(path, forwarded, address, request_id))

    def _check_edge(self, headers: CIMultiDictProxy[str]) -> None:
        """Raise ServiceError UNAUTHENTICATED unless Envoy asks: anybody here could name an address or a certificate."""
        given = _one(headers, EDGE_PROOF_KEY).encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._edge_proof):
            self._log.warning("the gate was asked by something else than the edge")
            raise ServiceError(ErrorReason.UNAUTHENTICATED)


def _one(headers: CIMultiDictProxy[str], name: str) -> str:
    """The value of a header; "" where it is absent, or there more than once."""
    values = headers.getall(name, ())
    return values[0] if len(values) == 1 else ""


def _address(headers: CIMultiDictProxy[str]) -> str:
    """The peer of Envoy, which it writes behind whatever the client claims; "" where it did not."""
    forwarded = headers.getall(FORWARDED_KEY, ("",))
    return normal_address(forwarded[-1].rpartition(",")[2].strip())


async def _body(request: web.BaseRequest) -> bytes:
    """Raises ServiceError BODY_TOO_LARGE."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ServiceError(ErrorReason.BODY_TOO_LARGE) from None


def _refusal(error: ServiceError, *, grpc: bool) -> web.Response:
    status = error.to_status()
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_seconds))
    if not grpc:
        text = json_format.MessageToJson(status, indent=None)
        return web.Response(status=error.row.http_status, text=text, headers=headers, content_type="application/json")
    headers["grpc-status"] = str(error.code.value[0])
    # Base64 without padding, as gRPC has it for binary headers.
    headers[STATUS_DETAILS_KEY] = base64.b64encode(status.SerializeToString()).decode("ascii").rstrip("=")
    return web.Response(status=error.row.http_status, text=error.message, headers=headers)
