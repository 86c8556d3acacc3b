"""TLS between services: each shows a certificate of the services' authority, servers and callers alike.

The files are read anew for each handshake, so that a renewal needs no restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog

from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.service_names import service_host


@dataclass(frozen=True, slots=True)
class ServiceTls:
    """`certificate` holds this service's private key and certificate, `authority` whom it trusts; both are PEM."""

    certificate: Path
    authority: Path

    @classmethod
    def read(cls, environment: Environment) -> ServiceTls | None:
        """PINCEX_SERVICE_CERTIFICATE and PINCEX_SERVICE_CA; None where services speak without TLS. Raises ConfigError."""
        certificate = environment.optional("PINCEX_SERVICE_CERTIFICATE")
        authority = environment.optional("PINCEX_SERVICE_CA")
        if certificate is None and authority is None:
            return None
        if certificate is None or authority is None:
            raise ConfigError("PINCEX_SERVICE_CERTIFICATE and PINCEX_SERVICE_CA are set together or not at all")
        found = cls(Path(certificate), Path(authority))
        for name, file in (("PINCEX_SERVICE_CERTIFICATE", found.certificate), ("PINCEX_SERVICE_CA", found.authority)):
            if not file.is_file():
                raise ConfigError(f"{name}: there is no file {file}")
        return found

    def server_credentials(self) -> grpc.ServerCredentials:
        """For one server: gRPC gives what is first in them to one port only. A caller without a certificate of the authority
        is refused in the handshake. Raises OSError.
        """
        first = self._files()
        return grpc.dynamic_ssl_server_credentials(
            _configuration(*first),
            self._renewed(first),  # type: ignore[arg-type]  # may answer None; the type stubs do not know
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For channels that are opened from now on. Raises OSError."""
        mine, authority = self._files()
        return grpc.ssl_channel_credentials(authority, mine, mine)

    def _files(self) -> tuple[bytes, bytes]:
        return self.certificate.read_bytes(), self.authority.read_bytes()

    def _renewed(self, known: tuple[bytes, bytes]) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What gRPC asks at each handshake, from a thread of its own: the new configuration, None for no change."""
        log: structlog.typing.FilteringBoundLogger = structlog.get_logger("tls")

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal known
            try:
                now = self._files()
            except OSError as error:
                log.warning("the certificate stays as it was", error=str(error))
                return None
            if now == known:
                return None
            known = now
            log.info("the certificate is replaced", file=str(self.certificate))
            return _configuration(*now)

        return fetch


def _configuration(mine: bytes, authority: bytes) -> grpc.ServerCertificateConfiguration:
    # gRPC takes from a text what it needs, the key or the certificate.
    return grpc.ssl_server_certificate_configuration([(mine, mine)], authority)


def open_channel(
    address: str, service: str, tls: ServiceTls | None, options: Sequence[tuple[str, Any]] = ()
) -> grpc.aio.Channel:
    """A channel to a service of ours; with `tls` both ends must show who they are, at whatever address it listens.

    Raises OSError where a certificate cannot be read.
    """
    if tls is None:
        return grpc.aio.insecure_channel(address, options=tuple(options))
    named = ("grpc.ssl_target_name_override", service_host(service))
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options=(*options, named))
