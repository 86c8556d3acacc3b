"""A follower's end of the link where the leader's process does not answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from exchange.trading.replication.messages import FollowerBatch, LinkLost, Refused
from exchange.trading.service.replica_link import GrpcTransport

DEADLINE_S = 5.0


async def test_a_link_to_a_stopped_process_ends_when_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        # The kernel takes the connection; nobody says anything on it.
        connection = await GrpcTransport("secret", "history").connect(f"127.0.0.1:{stopped.getsockname()[1]}", 1)
        sending = asyncio.create_task(connection.send(FollowerBatch()))
        receiving = asyncio.create_task(connection.receive())
        await asyncio.wait({sending, receiving}, timeout=0.2)
        assert not sending.done()

        connection.close()
        connection.close()
        for waiting in (sending, receiving):
            with pytest.raises(LinkLost):
                await asyncio.wait_for(waiting, DEADLINE_S)


async def test_an_address_where_nobody_listens_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(Refused):
        await GrpcTransport("secret", "history").connect(f"127.0.0.1:{port}", 1)
