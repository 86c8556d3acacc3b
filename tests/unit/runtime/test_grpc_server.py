"""The guarded server, over real connections."""

import asyncio
import json
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status._async import from_call  # rpc_status.aio, which the stubs do not know

from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.grpc_server import GrpcServer, ServerLimits, request_context
from exchange.runtime.metrics import GrpcMetrics
from exchange.runtime.principal import ALL_SCOPES, DenyingResolver, Principal
from tests.unit.runtime.conftest import SERVICE, TRADE, Echo, add_echo_to_server

HELLO = StringValue(value="hello")


async def echo(request: Any, context: Any) -> Any:
    return request


async def refused(call: Any) -> tuple[grpc.aio.AioRpcError, str, dict[str, str]]:
    """Await a call that must fail; return the error, its reason and its metadata."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    info = error_details_pb2.ErrorInfo()
    raw = trailing(error).get("grpc-status-details-bin")
    if raw is None:
        return error, "", {}
    status = await from_call(_Ended(error))
    assert status is not None
    assert status.message == error.details()
    assert status.details[0].Unpack(info)
    assert info.domain == "pincex"
    return error, info.reason, dict(info.metadata)


def trailing(error: Any) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())


class _Ended:
    """An error as `from_call` wants to see a call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    async def trailing_metadata(self) -> Any:
        return self._error.trailing_metadata()

    async def code(self) -> Any:
        return self._error.code()

    async def details(self) -> Any:
        return self._error.details()


async def read_all(call: Any) -> list[str]:
    return [message.value async for message in call]


async def test_a_unary_call_is_answered_and_counted(start):
    running = await start(Echo(one=echo))
    assert (await running.one()(HELLO)).value == "hello"
    assert running.requests("One", "OK") == 1
    assert running.count("grpc_request_duration_seconds_count", service=SERVICE, method="One") == 1


async def test_the_callers_request_id_is_bound_and_returned(start):
    seen: list[Any] = []

    async def handler(request, context):
        seen.append(request_context(context))
        return request

    running = await start(Echo(one=handler))
    call = running.one()(HELLO, metadata=(("x-request-id", "abc-1"), ("x-pincex-account", "alice")), timeout=5)
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "abc-1"
    assert seen[0].request_id == "abc-1"
    assert seen[0].principal == Principal("alice", frozenset(), "development", ALL_SCOPES)
    assert seen[0].method == f"{SERVICE}/One"
    assert 0 < seen[0].time_remaining() < 6


@pytest.mark.parametrize("given", ["has space", "x" * 65, "semi;colon"])
async def test_a_request_id_of_another_form_is_replaced(start, given):
    running = await start(Echo(one=echo))
    call = running.one()(HELLO, metadata=(("x-request-id", given),))
    await call
    made = dict(await call.trailing_metadata())["x-request-id"]
    assert made != given
    assert 0 < len(made) <= 64


async def test_two_calls_have_two_ids_and_no_deadline_means_none(start):
    seen: list[Any] = []

    async def handler(request, context):
        seen.append(request_context())
        return request

    running = await start(Echo(one=handler))
    await running.one()(HELLO)
    await running.one()(HELLO)
    assert seen[0].request_id != seen[1].request_id
    assert seen[0].deadline is None
    assert seen[0].time_remaining() is None


async def test_a_service_error_becomes_its_code_with_details(start):
    async def handler(request, context):
        reject(ErrorReason.PRICE_OFF_TICK, field="price", value="1.005", tick_size="0.01")

    running = await start(Echo(one=handler))
    error, reason, metadata = await refused(running.one()(HELLO, metadata=(("x-request-id", "r-7"),)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason == "PRICE_OFF_TICK"
    assert metadata == {"field": "price", "value": "1.005", "tick_size": "0.01"}
    assert trailing(error)["x-request-id"] == "r-7"
    assert running.requests("One", "INVALID_ARGUMENT") == 1


async def test_an_unexpected_exception_is_internal_and_hides_its_text(start, capfd):
    async def handler(request, context):
        raise RuntimeError("the password is swordfish")

    running = await start(Echo(one=handler))
    with structlog.testing.capture_logs() as lines:
        error, reason, metadata = await refused(running.one()(HELLO, metadata=(("x-request-id", "r-8"),)))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert reason == "INTERNAL"
    assert metadata == {"request_id": "r-8"}
    assert "swordfish" not in str(error.details())
    logged = next(line for line in lines if "exc_info" in line)
    assert isinstance(logged["exc_info"], RuntimeError)
    assert running.requests("One", "INTERNAL") == 1


async def test_bytes_that_are_no_message_are_a_malformed_request(start):
    running = await start(Echo(one=echo))
    error, reason, _ = await refused(running.raw("One")(b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason == "MALFORMED_REQUEST"


async def test_garbage_inside_a_stream_ends_it_as_a_malformed_request(start):
    cleaned = asyncio.Event()

    async def chat(requests, context):
        try:
            async for request in requests:
                yield request
        finally:
            cleaned.set()

    running = await start(Echo(chat=chat))
    call = running.channel.stream_stream(f"/{SERVICE}/Chat")()
    await call.write(HELLO.SerializeToString())
    assert StringValue.FromString(await call.read()) == HELLO
    await call.write(b"\xff\xff\xff")
    _, reason, _ = await refused(call.read())
    assert reason == "MALFORMED_REQUEST"
    assert cleaned.is_set()


async def test_a_method_nobody_serves_is_unimplemented_under_one_series(start):
    running = await start(Echo(one=echo))
    for name in ("Nope", "Never"):
        error, _, _ = await refused(running.raw(name)(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert running.count("grpc_requests_total", service="unknown", method="unknown", code="UNIMPLEMENTED") == 2


async def test_the_stubs_default_is_unimplemented(start):
    def default(request, context):
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    running = await start(Echo(one=default, stream=default))
    for call in (running.one()(HELLO), read_all(running.stream()(HELLO))):
        error, _, _ = await refused(call)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_handlers_own_abort_passes_and_is_counted(start, within):
    ended = asyncio.Event()

    async def handler(request, context):
        context.add_done_callback(lambda _: ended.set())
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "so far")

    running = await start(Echo(one=handler))
    error, _, _ = await refused(running.one()(HELLO))
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "so far")
    await within(ended.wait())
    assert running.requests("One", "OUT_OF_RANGE") == 1


async def test_a_handler_sees_the_cancellation_and_it_is_counted(start, within):
    entered, left = asyncio.Event(), asyncio.Event()

    async def handler(request, context):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.set()
            raise

    running = await start(Echo(one=handler))
    call = running.one()(HELLO)
    await within(entered.wait())
    call.cancel()
    await within(left.wait())
    assert running.server.guard.unary_in_flight == 0
    assert running.requests("One", "CANCELLED") == 1


async def test_a_deadline_ends_the_handler(start, within):
    left = asyncio.Event()

    async def handler(request, context):
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    running = await start(Echo(one=handler))
    error, _, _ = await refused(running.one()(HELLO, timeout=0.05))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await within(left.wait())


async def test_an_expired_call_never_reaches_the_handler(start):
    reached = []

    class Late:
        """A context whose deadline has passed: over the wire gRPC mostly ends such a call itself."""

        aborted: Any = None

        def invocation_metadata(self):
            return ()

        def set_trailing_metadata(self, metadata):
            self.trailing = metadata

        def trailing_metadata(self):
            return self.trailing

        def time_remaining(self):
            return 0.0

        def peer(self):
            return "ipv4:127.0.0.1:1"

        def code(self):
            return None

        async def abort(self, code, details, trailing):
            self.aborted = code
            raise grpc.aio.AbortError

    async def handler(request, context):
        reached.append(request)
        return request

    running = await start(Echo(one=handler))
    guarded: Any = running.server._handlers[f"/{SERVICE}/One"].unary_unary
    late = Late()
    with pytest.raises(grpc.aio.AbortError):
        await guarded(HELLO.SerializeToString(), late)
    assert late.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not reached


async def test_more_calls_than_the_limit_are_refused_with_retry_info(start, within):
    entered, gate = asyncio.Event(), asyncio.Event()

    async def handler(request, context):
        entered.set()
        await gate.wait()
        return request

    running = await start(Echo(one=handler), limits=ServerLimits(max_unary_in_flight=1))
    first = running.one()(HELLO)
    await within(entered.wait())
    error, reason, metadata = await refused(running.one()(HELLO))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (reason, metadata) == ("OVERLOADED", {"limit": "1"})
    gate.set()
    assert await first == HELLO
    assert await running.one()(HELLO) == HELLO


async def test_more_streams_than_the_limit_are_refused(start, within):
    async def stream(request, context):
        yield request
        await asyncio.Event().wait()

    running = await start(Echo(stream=stream), limits=ServerLimits(max_open_streams=1))
    first = running.stream()(HELLO)
    assert await within(first.read()) == HELLO
    _, reason, _ = await refused(read_all(running.stream()(HELLO)))
    assert reason == "TOO_MANY_STREAMS"
    assert running.count("grpc_streams_open", service=SERVICE, method="Stream") == 1


async def test_an_answer_beyond_the_limit_is_refused_unary_and_in_a_stream(start):
    big = StringValue(value="x" * 2_000)

    async def one(request, context):
        return big

    async def stream(request, context):
        yield request
        yield big

    running = await start(Echo(one=one, stream=stream), limits=ServerLimits(max_response_bytes=1_000))
    for call in (running.one()(HELLO), read_all(running.stream()(HELLO))):
        _, reason, metadata = await refused(call)
        assert (reason, metadata) == ("RESPONSE_TOO_LARGE", {"limit": "1000"})


async def test_a_request_beyond_the_limit_is_refused(start):
    running = await start(Echo(one=echo), limits=ServerLimits(max_request_bytes=1_000))
    error, _, _ = await refused(running.one()(StringValue(value="x" * 2_000)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_of_either_style_and_encoded_messages_arrive(start):
    async def generator(request, context):
        yield request
        # Encoded once, shared by many subscribers.
        yield request.SerializeToString()

    async def writer(requests, context):
        async for request in requests:
            await context.write(request)
            await context.write(request.SerializeToString())

    running = await start(Echo(stream=generator, chat=writer))
    assert await read_all(running.stream()(HELLO)) == ["hello", "hello"]
    assert await read_all(running.chat()(iter([HELLO]))) == ["hello", "hello"]
    assert running.requests("Stream", "OK") == 1
    assert running.requests("Chat", "OK") == 1
    assert running.server.guard.open_streams == 0


async def test_a_stream_of_requests_is_answered_once(start):
    async def collect(requests, context):
        return StringValue(value=" ".join([request.value async for request in requests]))

    running = await start(Echo(collect=collect))
    assert (await running.collect()(iter([HELLO, HELLO]))).value == "hello hello"


async def test_an_error_inside_a_stream_follows_what_was_sent(start):
    async def stream(request, context):
        yield request
        raise ServiceError(ErrorReason.SEQUENCE_NOT_RETAINED, metadata={"floor_sequence": 7})

    running = await start(Echo(stream=stream))
    call = running.stream()(HELLO)
    assert await call.read() == HELLO
    error, reason, metadata = await refused(call.read())
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert (reason, metadata) == ("SEQUENCE_NOT_RETAINED", {"floor_sequence": "7"})


async def test_a_stream_that_the_client_leaves_runs_its_cleanup_before_it_ends(start, within):
    order: list[str] = []
    ended = asyncio.Event()

    async def stream(request, context):
        context.add_done_callback(lambda _: order.append("ended"))
        context.add_done_callback(lambda _: ended.set())
        try:
            while True:
                # Large and unread: the handler waits inside a write, the generator at its yield.
                yield StringValue(value="x" * 1_000_000)
        finally:
            order.append("cleaned")

    running = await start(Echo(stream=stream))
    call = running.stream()(HELLO)
    await within(call.read())
    call.cancel()
    await within(ended.wait())
    assert order == ["cleaned", "ended"]
    assert running.server.guard.open_streams == 0
    assert running.requests("Stream", "CANCELLED") == 1


async def test_a_resolver_may_take_its_time(start):
    class Slow:
        async def resolve(self, peer, metadata):
            await asyncio.sleep(0)
            return Principal("slow", frozenset(), "token", frozenset({"trade"}))

        def why_void(self, principal):
            return None

    async def who(request, context):
        return StringValue(value=request_context(context).principal.account)

    running = await start(Echo(one=who), resolver=Slow())
    assert (await running.one()(HELLO)).value == "slow"


async def test_health_follows_what_is_set(start, within):
    running = await start(Echo(one=echo))
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await within(watch.read())).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await running.server.set_serving(True)
    assert (await within(watch.read())).status == health_pb2.HealthCheckResponse.SERVING
    for service in ("", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_stopping_server_tells_its_streams_and_waits_for_its_calls(start, within):
    entered, gate = asyncio.Event(), asyncio.Event()

    async def one(request, context):
        entered.set()
        await gate.wait()
        return request

    async def stream(request, context):
        yield request
        await running.server.drain.wait()
        assert running.server.drain.time_remaining() > 0
        yield StringValue(value="drain notice")

    running = await start(Echo(one=one, stream=stream))
    await running.server.set_serving(True)
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await within(watch.read())).status == health_pb2.HealthCheckResponse.SERVING
    open_stream = running.stream()(HELLO)
    assert await within(open_stream.read()) == HELLO
    unary = running.one()(HELLO)
    await within(entered.wait())

    stopping = asyncio.create_task(running.server.stop(30))
    assert (await within(open_stream.read())).value == "drain notice"
    assert (await within(watch.read())).status == health_pb2.HealthCheckResponse.NOT_SERVING
    # Long before the grace is over: a watch knows nothing of the drain.
    _, reason, _ = await within(refused(watch.read()))
    assert reason == "DRAINING"
    gate.set()
    assert await within(unary) == HELLO
    await within(stopping)


async def test_a_stream_that_ignores_the_drain_is_told_before_it_is_cut(start, within):
    cleaned = asyncio.Event()

    async def stream(request, context):
        yield request
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    running = await start(Echo(stream=stream))
    call = running.stream()(HELLO)
    await within(call.read())
    stopping = asyncio.create_task(running.server.stop(0.3))
    error, reason, _ = await refused(call.read())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert reason == "DRAINING"
    assert cleaned.is_set()
    await within(stopping)


async def test_a_call_that_arrives_while_draining_is_refused(start):
    running = await start(Echo(one=echo))
    running.server.drain.begin(deadline=float("inf"))
    error, reason, _ = await refused(running.one()(HELLO))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert reason == "DRAINING"


async def test_a_taken_port_is_named(start):
    running = await start(Echo(one=echo))
    second = GrpcServer(f"127.0.0.1:{running.server.port}", resolver=DenyingResolver(), metrics=running.server._metrics)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{running.server.port}"):
        await second.start()


async def test_a_service_is_registered_once(start):
    running = await start(Echo(one=echo))
    with pytest.raises(ValueError, match="registered already"):
        running.server.add(add_echo_to_server, Echo(one=echo), TRADE)


async def test_pings_at_the_permitted_pace_are_welcome_and_faster_ones_are_not(start, within):
    """Pings without calls, 12 of them: the server's default would cut the connection after two strikes."""

    async def stream(request, context):
        yield request
        await asyncio.Event().wait()

    async def outcome(min_ping_interval_ms: int) -> str:
        running = await start(Echo(stream=stream), limits=ServerLimits(min_ping_interval_ms=min_ping_interval_ms))
        return await ping(running.server.port, 12)

    assert await within(outcome(10)) == "kept"
    assert await within(outcome(60_000)) == "too_many_pings"


async def ping(port: int, count: int) -> str:
    """Speak HTTP/2 by hand: the preface, then `count` pings 20 ms apart; tell how the server took it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    answered = 0
    try:
        while True:
            header = await reader.readexactly(9)
            length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
            body = await reader.readexactly(length)
            if kind == 0x7:
                return body[8:].decode()
            if kind == 0x4 and not flags & 1:
                writer.write(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00")
            elif kind == 0x6 and flags & 1:
                answered += 1
                if answered == count:
                    return "kept"
                # The pace of the pings themselves, not a wait for something.
                await asyncio.sleep(0.02)
            else:
                continue
            writer.write(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + answered.to_bytes(8, "big"))
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_access_line_names_method_code_and_time(start):
    async def handler(request, context):
        reject(ErrorReason.ORDER_NOT_FOUND)

    running = await start(Echo(one=handler))
    with structlog.testing.capture_logs() as lines:
        await refused(running.one()(HELLO))
    line = next(line for line in lines if line["event"] == "call")
    assert line["method"] == f"{SERVICE}/One"
    assert line["code"] == "NOT_FOUND"
    assert line["log_level"] == "info"
    assert line["ms"] >= 0
    assert json.dumps(line)


async def test_two_servers_share_their_metrics(start):
    running = await start(Echo(one=echo))
    with pytest.raises(ValueError, match="Duplicated"):
        GrpcMetrics(running.registry)
