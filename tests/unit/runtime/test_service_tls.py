"""TLS between services, over real connections: who is let in, and what a renewal changes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.service_names import service_host
from exchange.runtime.service_tls import ServiceTls, open_channel
from exchange.stack.certificates.description import read_chain
from exchange.stack.certificates.store import CertificateStore

ENGINE = "trading-engine"
CALL_DEADLINE_S = 10.0
_ECHO, _STREAM = "/test.Test/Echo", "/test.Test/Stream"
_LOCAL = (("grpc.use_local_subchannel_pool", 1),)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """An echo, and a stream of echoes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def echo(request: bytes, context: Any) -> bytes:
            return request

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request

        if handler_call_details.method == _STREAM:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(echo)


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    store = CertificateStore(tmp_path)
    store.create_edge()
    store.create_services([ENGINE, "auth", "envoy"])
    return store


def tls_of(store: CertificateStore, service: str) -> ServiceTls:
    return ServiceTls(store.service(service), store.services_authority)


@pytest.fixture
async def port(store: CertificateStore) -> AsyncIterator[int]:
    """An engine that listens."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_secure_port("127.0.0.1:0", tls_of(store, ENGINE).server_credentials())
    await server.start()
    yield port
    await server.stop(None)


async def call(channel: grpc.aio.Channel) -> bytes:
    async with channel:
        answer: bytes = await channel.unary_unary(_ECHO, bytes, bytes)(b"hello", timeout=CALL_DEADLINE_S)
        return answer


async def refused(channel: grpc.aio.Channel) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(channel)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(error.value.details())


def to(port: int, tls: ServiceTls | None, service: str = ENGINE) -> grpc.aio.Channel:
    return open_channel(f"127.0.0.1:{port}", service, tls, _LOCAL)


async def served(store: CertificateStore, port: int) -> bytes:
    """The certificate, in DER form, that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(store.services_authority))
    context.load_cert_chain(store.service("envoy"))
    host = service_host(ENGINE)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


def der(file: Path) -> bytes:
    return read_chain(file)[0].public_bytes(Encoding.DER)


async def test_a_service_is_let_in_and_nobody_else_is(store: CertificateStore, port: int) -> None:
    assert await call(to(port, tls_of(store, "auth"))) == b"hello"

    await refused(to(port, None))
    nobody = grpc.ssl_channel_credentials(store.services_authority.read_bytes())
    named = ("grpc.ssl_target_name_override", service_host(ENGINE))
    await refused(grpc.aio.secure_channel(f"127.0.0.1:{port}", nobody, options=(*_LOCAL, named)))
    store.create_client("acme")
    await refused(to(port, ServiceTls(store.client("acme"), store.services_authority)))


async def test_each_server_has_credentials_of_its_own(store: CertificateStore) -> None:
    tls = tls_of(store, ENGINE)
    for _ in range(2):
        server = grpc.aio.server()
        assert server.add_secure_port("127.0.0.1:0", tls.server_credentials())
        await server.stop(None)


async def test_a_server_that_is_another_service_is_not_believed(store: CertificateStore, port: int) -> None:
    why = await refused(to(port, tls_of(store, "auth"), service="auth"))
    assert "Hostname Verification Check failed" in why


async def test_a_renewal_is_seen_by_new_connections_and_leaves_old_ones_alone(
    store: CertificateStore, port: int
) -> None:
    async with to(port, tls_of(store, "envoy")) as channel:
        stream: Any = channel.stream_stream(_STREAM, bytes, bytes)(None, timeout=CALL_DEADLINE_S)
        await stream.write(b"before")
        assert await stream.read() == b"before"
        file = store.service(ENGINE)
        old = der(file)
        assert await served(store, port) == old
        store.renew([f"service/{ENGINE}"])

        assert await served(store, port) == der(file) != old
        assert await call(to(port, tls_of(store, "auth"))) == b"hello"
        await stream.write(b"after")
        assert await stream.read() == b"after"
        stream.cancel()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PINCEX_SERVICE_CERTIFICATE": "/nowhere/x.pem"}, "are set together"),
        ({"PINCEX_SERVICE_CA": "/nowhere/x.pem"}, "are set together"),
        (
            {"PINCEX_SERVICE_CERTIFICATE": "/nowhere/x.pem", "PINCEX_SERVICE_CA": "/nowhere/y.pem"},
            "PINCEX_SERVICE_CERTIFICATE: there is no file /nowhere/x.pem",
        ),
    ],
)
def test_half_a_configuration_stops_the_start(values: dict[str, str], message: str) -> None:
    assert ServiceTls.read(Environment({})) is None
    with pytest.raises(ConfigError, match=message):
        ServiceTls.read(Environment(values))
