"""What the edge shall be, in our own words; `render` turns it into Envoy's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exchange.stack.edge.contract import Contract, Method

# Envoy's configuration as JSON. A precise recursive type makes every literal below need a cast and finds no error that
# `envoy --mode validate` does not find.
Json: TypeAlias = dict[str, object]

LOOPBACK = "127.0.0.1"
WEBSOCKET_PATH = "/ws"
TYPE = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class Route:
    """Which upstreams serve the services of one proto package: `public` for clients (None: nothing of it is), `ops` for
    operators.
    """

    package: str
    public: str | None
    ops: str


@dataclass(frozen=True, slots=True)
class Preferred:
    """A proto service whose public calls go to the first of these upstreams that has healthy instances; `cluster` is what they
    are together.
    """

    service: str
    cluster: str
    upstreams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the edge; the unit comes last. `docs/EDGE.md` explains each."""

    rest_body_bytes: int = 1 << 20
    rest_response_bytes: int = 8 << 20
    headers_kib: int = 32
    headers_count: int = 64
    request_headers_timeout_s: int = 5
    # Between two parts of a REST request body.
    request_idle_timeout_s: int = 10
    unary_timeout_s: int = 10
    repeat_try_timeout_s: int = 3
    # Above the heartbeat of every stream, which is 5 s at most.
    stream_idle_timeout_s: int = 300
    connection_idle_timeout_s: int = 600
    connections: int = 10_000
    streams_per_connection: int = 1024
    upstream_connections: int = 128
    upstream_pending: int = 1024
    upstream_requests: int = 16_384
    retries: int = 2
    repeatable_retries: int = 3
    drain_s: int = 2


@dataclass(frozen=True, slots=True)
class TlsListener:
    """A listener that carries what the public edge carries, over TLS, at an address of this machine.

    With `client_certificates` it asks for a client's certificate, and the gate says whom that stands for.
    """

    name: str
    host: str
    port: int
    client_certificates: bool = False

    @property
    def address(self) -> str:
        """`host:port` as a URL has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Identity:
    """The auth service as the edge asks it, by two upstreams that speak plain HTTP: `gate` judges signed requests, `keys` has
    the public keys of access tokens. `proof` is a secret by which the gate knows that the edge asks.

    A new key is known after `keys_age_s`; it is published for longer before it signs, one that replaces a stolen key for 5 s.
    """

    proof: str = field(repr=False)
    gate: str = "auth-gate"
    keys: str = "auth-keys"
    keys_age_s: int = 2


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second that one caller may send; a second's worth may come at once. A stream counts as one request.

    `known` is for each user, over all its tokens and keys; `unknown` for each address that comes without a token;
    `credentials` for each address at each method that takes passwords and codes.
    """

    known: int = 20_000
    unknown: int = 20_000
    credentials: int = 200


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """The whole edge of one machine. Plain ports listen on 127.0.0.1.

    Without `identity` nobody is known here. `anonymous`: calls without a token go on, as the development profile has it.
    `internal_port` None: no service here asks another.
    """

    contract: Contract
    edge_port: int
    ops_port: int
    admin_port: int
    endpoints_dir: Path
    access_log: Path
    # Each a group of equal gRPC servers, found through an endpoint file that may change at any time.
    upstreams: tuple[str, ...]
    routes: tuple[Route, ...]
    # Serves reflection, health and channelz on the ops listener.
    infrastructure_upstream: str
    preferred: tuple[Preferred, ...] = ()
    identity: Identity | None = None
    anonymous: bool = True
    rates: Rates = field(default_factory=Rates)
    limits: Limits = field(default_factory=Limits)
    tls_listeners: tuple[TlsListener, ...] = ()
    # Which service an upstream is, where connections to it are TLS.
    tls_services: Mapping[str, str] = field(default_factory=dict)
    internal_port: int | None = None
    # The upstream that speaks WebSocket, at WEBSOCKET_PATH of the listeners for clients; None: nothing here does.
    websocket: str | None = None

    @property
    def secrets_dir(self) -> Path:
        """Where keys and certificates for Envoy are."""
        return self.endpoints_dir.parent / "secrets"

    def checks_roles(self, *, public: bool) -> bool:
        """Whether a listener lets nobody through whose token has not the roles: where the port says nothing about the caller."""
        return self.identity is not None and not public and not self.anonymous

    def served(self, *, public: bool) -> tuple[Method, ...]:
        """The methods that a listener carries and something here answers."""
        carried = self.contract.carried(public=public)
        return tuple(method for method in carried if self.upstream_of(method.package, public=public) is not None)

    def cluster_of(self, method: Method, *, public: bool) -> str | None:
        """Where calls of a method go on that listener, None if nothing here answers them."""
        for one in self.preferred if public else ():
            if one.service == method.service:
                return one.cluster
        return self.upstream_of(method.package, public=public)

    def upstream_of(self, package: str, *, public: bool) -> str | None:
        """The upstream that serves this proto package on that listener, None if nothing here does."""
        for route in self.routes:
            if route.package == package:
                return route.public if public else route.ops
        return None


def seconds(value: float) -> str:
    """A protobuf Duration in JSON."""
    return f"{value:g}s"


def socket_address(port: int, host: str = LOOPBACK) -> Json:
    """A loopback address: only TLS listeners may be on another."""
    return {"socket_address": {"address": host, "port_value": port}}
