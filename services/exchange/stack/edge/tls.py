"""TLS of listeners and towards services; keys and certificates come through files that may change at any time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from exchange.runtime.service_names import service_uri
from exchange.stack.edge.plan import TYPE, Json, TlsListener
from exchange.stack.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

# Names of secrets, and of the files that hold them.
EDGE, CLIENT_AUTHORITY = "edge", "client-authority"
INTERNAL, INTERNAL_AUTHORITY = "internal", "internal-authority"

# Forward secrecy and authenticated encryption only; TLS 1.3 has nothing else.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
# A client that says nothing holds a connection for no longer.
HANDSHAKE_TIMEOUT_S = 10

_TLS = f"{TYPE}envoy.extensions.transport_sockets.tls.v3."
_SOCKET = "envoy.transport_sockets.tls"


def downstream(listener: TlsListener, secrets_dir: Path) -> Json:
    """The transport socket of a TLS listener."""
    common: Json = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": list(CIPHERS),
            "ecdh_curves": ["X25519", "P-256"],
        },
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_secret(EDGE, secrets_dir)],
    }
    context: Json = {"@type": f"{_TLS}DownstreamTlsContext", "common_tls_context": common}
    if listener.client_certificates:
        common["validation_context_sds_secret_config"] = _secret(CLIENT_AUTHORITY, secrets_dir)
        context["require_client_certificate"] = True
        # A resumed session would not look at the client's certificate again, however long ago that has expired.
        context["disable_stateless_session_resumption"] = True
        context["disable_stateful_session_resumption"] = True
    return {"name": _SOCKET, "typed_config": context}


def upstream(service: str, secrets_dir: Path) -> Json:
    """The transport socket towards a service of ours: it shows its certificate, and the edge shows its own."""
    uri = {"san_type": "URI", "matcher": {"exact": service_uri(service)}}
    context: Json = {
        "@type": f"{_TLS}UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_secret(INTERNAL, secrets_dir)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [uri]},
                "validation_context_sds_secret_config": _secret(INTERNAL_AUTHORITY, secrets_dir),
            },
        },
    }
    return {"name": _SOCKET, "typed_config": context}


def refusals_log(listener: TlsListener, file: Path) -> Json:
    """A line for each handshake that failed, with what the client showed: it is told no reason, and asks the operator."""
    return {
        "name": "envoy.access_loggers.file",
        "filter": {
            "extension_filter": {
                "name": "envoy.access_loggers.extension_filters.cel",
                "typed_config": {
                    "@type": f"{TYPE}envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    "expression": "connection.transport_failure_reason != ''",
                },
            },
        },
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "listener": listener.name,
                    "handshake": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
                    "address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "certificate_subject": "%DOWNSTREAM_PEER_SUBJECT%",
                    "certificate_uri": "%DOWNSTREAM_PEER_URI_SAN%",
                    "certificate_issuer": "%DOWNSTREAM_PEER_ISSUER%",
                    "certificate_end": "%DOWNSTREAM_PEER_CERT_V_END%",
                },
            },
        },
    }


def write_certificate(secrets_dir: Path, name: str, chain: str, key: str) -> bool:
    """Hands a certificate with its key, both PEM, to Envoy as the secret `name`; returns whether it is another than before."""
    body = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
    return _write(secrets_dir, name, {"tls_certificate": body})


def write_authority(secrets_dir: Path, name: str, authorities: str) -> bool:
    """Hands authorities that are trusted, PEM, to Envoy as the secret `name`; returns whether they are others than before."""
    return _write(secrets_dir, name, {"validation_context": {"trusted_ca": {"inline_string": authorities}}})


def _write(secrets_dir: Path, name: str, body: Json) -> bool:
    secret = {"@type": f"{_TLS}Secret", "name": name, **body}
    text = json.dumps({"resources": [secret]}, indent=1)
    file = _file(secrets_dir, name)
    if file.exists() and file.read_text() == text:
        return False
    secrets_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # By a rename: the only change that Envoy's watch of the folder acts on.
    write_private(file, text)
    return True


def _file(secrets_dir: Path, name: str) -> Path:
    return secrets_dir / f"{name}.json"


def _secret(name: str, secrets_dir: Path) -> Json:
    source = {"path": str(_file(secrets_dir, name)), "watched_directory": {"path": str(secrets_dir)}}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": source}}
