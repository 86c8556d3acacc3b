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
    from collections.abc import Callable, Mapping, Sequence
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

    listeners: tuple[TlsListener, ...]
    pairs: Mapping[str, PairFiles]
    authorities: Mapping[str, Path]
    services: Mapping[str, str]
    store: CertificateStore

    def delivery(self, secrets_dir: Path, report: Callable[[dict[str, object]], None]) -> Delivery:
        """What hands them to Envoy."""
        return Delivery(secrets_dir, self.pairs, self.authorities, report)

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
    if settings.certificate is None and (settings.mode == ON or (settings.mode != OFF and store.edge.exists())):
        # Good for the address that it is asked at, and for a while.
        store.create_edge([settings.host])
    certificate = settings.certificate or store.edge
    if settings.mode != OFF and (settings.certificate is not None or store.edge.exists()):
        pairs[tls.EDGE] = PairFiles(certificate, settings.key or certificate)
        listeners.append(TlsListener("tls", settings.host, ports["tls"]()))
        authority = settings.client_authority or store.authority
        if has_gate and authority.exists():
            authorities[tls.CLIENT_AUTHORITY] = authority
            listeners.append(TlsListener("mtls", settings.host, ports["mtls"](), client_certificates=True))
    if settings.internal:
        _internal(store, sorted(set(upstreams.values())), pairs, authorities)
    return Tls(tuple(listeners), pairs, authorities, upstreams if settings.internal else {}, store)


def _internal(
    store: CertificateStore, services: Sequence[str], pairs: dict[str, PairFiles], authorities: dict[str, Path]
) -> None:
    store.create_services([EDGE_SERVICE, *services])
    mine = store.service(EDGE_SERVICE)
    pairs[tls.INTERNAL] = PairFiles(mine, mine)
    authorities[tls.INTERNAL_AUTHORITY] = store.services_authority
