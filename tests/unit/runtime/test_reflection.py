"""What tools learn from a running server."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from exchange.runtime.principal import DevelopmentResolver
from exchange.runtime.reflection import exchange_services
from tests.unit.runtime.conftest import SERVICE, Echo

GRPCURL = Path(sys.executable).parent / "grpcurl"


async def echo(request: Any, context: Any) -> Any:
    return request


async def grpcurl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        GRPCURL, "-plaintext", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.mark.timeout(180)
async def test_grpcurl_lists_describes_and_calls(start):
    running = await start(Echo(one=echo))
    await running.server.set_serving(True)
    address = f"127.0.0.1:{running.server.port}"
    assert (await grpcurl(address, "list")).split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
    ]
    for version in ("v1", "v1alpha"):
        described = await grpcurl(address, "describe", f"grpc.reflection.{version}.ServerReflection")
        assert f"stream .grpc.reflection.{version}.ServerReflectionRequest" in described
    answer = await grpcurl(address, "grpc.health.v1.Health/Check")
    assert json.loads(answer) == {"status": "SERVING"}


def test_all_services_that_a_listener_carries_can_be_described() -> None:
    found = set(exchange_services())
    assert {
        "pincex.settlement.v1.SettlementService",
        "pincex.wallet.v1.WalletService",
        "pincex.kyc.v1.KycAdminService",
    } <= found
    assert not [name for name in found if not name.startswith("pincex.")]


async def test_channelz_is_for_operators(start):
    running = await start(Echo(one=echo), resolver=DevelopmentResolver(operator=True), channelz=True)
    stub: Any = channelz_pb2_grpc.ChannelzStub(running.channel)
    answer = await stub.GetServers(channelz_pb2.GetServersRequest())
    assert len(answer.server) >= 1
