"""Which TLS an `up` has: decided by the settings and by what certificates there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exchange.stack.certificates.delivery import Delivery, PairFiles
from exchange.stack.certificates.settings import OFF, ON
from exchange.stack.certificates.store import CertificateStore
from exchange.stack.edge import tls
from exchange.stack.edge.plan import TlsListener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exchange.stack.certificates.settings import TlsSettings

# What services read: see `exchange.runtime.service_tls`.
SERVICE_TLS = ("PINCEX_SERVICE_CERTIFICATE", "PINCEX_SERVICE_CA")
# The edge's own name among the services.
EDGE_SERVICE = "envoy"


@dataclass(frozen=True, slots=True)
class Tls:
    """`listeners` and `pairs`, `authorities` (files by name of secret) are the edge's; `services` maps its upstreams to
    services where connections to these are TLS.
    """

    store: CertificateStore
    settings: TlsSettings
    listeners: tuple[TlsListener, ...]
    pairs: Mapping[str, PairFiles]
    authorities: Mapping[str, Path]
    services: Mapping[str, str]

    def ensure(self) -> None:
        """Makes what is missing of ours and in use, and renews what has no 30 days left. Raises StackError."""
        if tls.EDGE in self.pairs and self.settings.certificate is None:
            # Good for the address that it is asked at.
            self.store.create_edge([self.settings.host])
        if self.services:
            self.store.create_services([EDGE_SERVICE, *sorted(set(self.services.values()))])

    def delivery(self, secrets_dir: Path, report: Callable[[dict[str, object]], None]) -> Delivery:
        """What hands them to Envoy."""
        return Delivery(secrets_dir, self.pairs, self.authorities, self.ensure, report)

    def environment(self, service: str) -> dict[str, str]:
        """What a service must know to speak TLS with the others; nothing where they do not."""
        if service not in self.services.values():
            return {}
        files = (self.store.service(service), self.store.services_authority)
        return dict(zip(SERVICE_TLS, map(str, files), strict=True))


def decide(
    home: Path,
    settings: TlsSettings,
    upstreams: Mapping[str, str],
    ports: Mapping[str, Callable[[], int]],
    *,
    has_gate: bool,
) -> Tls:
    """Makes certificates of ours where they are asked for and missing. Raises StackError.

    `upstreams` names the service of each; `ports` are asked for `tls` and `mtls` where these listen; without a gate nobody
    could say whom a client's certificate stands for.
    """
    store = CertificateStore(home)
    pairs: dict[str, PairFiles] = {}
    authorities: dict[str, Path] = {}
    listeners: list[TlsListener] = []
    given = settings.certificate
    if settings.mode == ON or (settings.mode != OFF and (given is not None or store.edge.exists())):
        pairs[tls.EDGE] = PairFiles(given or store.edge, settings.key or store.edge)
        listeners.append(TlsListener("tls", settings.host, ports["tls"]()))
        # Where the edge's certificate is ours, so is who signs clients'; an operator must say whom he trusts.
        knows_clients = settings.client_authority is not None or given is None or store.authority.exists()
        if has_gate and knows_clients:
            authorities[tls.CLIENT_AUTHORITY] = settings.client_authority or store.authority
            listeners.append(TlsListener("mtls", settings.host, ports["mtls"](), client_certificates=True))
    if settings.internal:
        mine = store.service(EDGE_SERVICE)
        pairs[tls.INTERNAL] = PairFiles(mine, mine)
        authorities[tls.INTERNAL_AUTHORITY] = store.services_authority
    services = upstreams if settings.internal else {}
    found = Tls(store, settings, tuple(listeners), pairs, authorities, services)
    found.ensure()
    return found
