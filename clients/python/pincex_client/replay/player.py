"""Sends a flow through one order session, in order, and keeps what became of each command."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import perf_counter

from pincex.trading.v1 import order_commands_pb2 as commands_pb2
from pincex.trading.v1 import order_session_pb2 as wire
from pincex.trading.v1 import types_pb2
from pincex_client.replay.flow import FlowCommand
from pincex_client.replay.plan import Plan
from pincex_client.results import CommandResult
from pincex_client.session import OrderSession, ResultFuture

SIDES = {"BUY": types_pb2.BUY, "SELL": types_pb2.SELL}
TIMES_IN_FORCE = {"GTC": types_pb2.GTC, "IOC": types_pb2.IOC}


@dataclass(slots=True)
class Played:
    """What became of the commands: results by recorded seq; latencies in seconds, from queueing to result."""

    results: dict[int, CommandResult] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def seq_of_sequence(self) -> dict[int, int]:
        """Recorded command by engine sequence."""
        return {result.sequence: seq for seq, result in self.results.items() if result.sequence}

    @property
    def last_sequence(self) -> int:
        """Newest engine sequence of the run."""
        return max((result.sequence for result in self.results.values()), default=0)


def session_command(command: FlowCommand, plan: Plan) -> wire.SessionCommand:
    """Put one recorded command into the exchange's terms, with ids that follow from the run: repeatable for ever."""
    client_order_id = plan.prefix + command.order_id
    request_id = f"{plan.prefix}r{command.seq}"
    match command.kind:
        case "SEED" | "NEW":
            return wire.SessionCommand(
                place=commands_pb2.PlaceOrderRequest(
                    symbol=plan.symbol,
                    side=SIDES[command.side],
                    order_type=types_pb2.LIMIT,
                    quantity=command.quantity,
                    price=command.price,
                    time_in_force=TIMES_IN_FORCE[command.tif],
                    self_trade_prevention=types_pb2.NONE,
                    client_order_id=client_order_id,
                )
            )
        case "CANCEL":
            return wire.SessionCommand(
                cancel=commands_pb2.CancelOrderRequest(client_order_id=client_order_id, request_id=request_id)
            )
        case "REDUCE":
            return wire.SessionCommand(
                reduce=commands_pb2.ReduceOrderRequest(
                    client_order_id=client_order_id, quantity=command.quantity, request_id=request_id
                )
            )
        case "REPLACE":
            return wire.SessionCommand(
                replace=commands_pb2.ReplaceOrderRequest(
                    client_order_id=client_order_id,
                    price=command.price,
                    quantity=command.quantity,
                    request_id=request_id,
                )
            )
    raise AssertionError(f"unknown kind {command.kind}")


async def play(
    session: OrderSession,
    commands: Sequence[FlowCommand],
    plan: Plan,
    *,
    rate: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Played:
    """Send all commands in order and wait for all results; `rate` is in commands per second, None: no limit.

    Raises the `ExchangeError` with which the session ended, if it did.
    """
    loop = asyncio.get_running_loop()
    played = Played()
    done: asyncio.Future[None] = loop.create_future()
    begin = perf_counter()  # uvloop's own clock has milliseconds only

    def settle(seq: int, sent: float, future: ResultFuture) -> None:
        error = future.exception()
        if error is not None:
            if not done.done():
                done.set_exception(error)
            return
        played.results[seq] = future.result()
        played.latencies.append(perf_counter() - sent)
        if progress is not None:
            progress(1)
        if len(played.results) == len(commands) and not done.done():
            done.set_result(None)

    try:
        await _send_all(session, commands, plan, rate, settle)
        await done
    finally:
        if done.done() and not done.cancelled():
            done.exception()  # Seen: the session has raised it, or is about to.
    played.elapsed = perf_counter() - begin
    return played


async def _send_all(
    session: OrderSession,
    commands: Sequence[FlowCommand],
    plan: Plan,
    rate: float | None,
    settle: Callable[[int, float, ResultFuture], None],
) -> None:
    begin = perf_counter()
    rest = iter(commands)
    sent = 0
    while due := list(islice(rest, _due(perf_counter() - begin, sent, rate))):
        for command in due:
            future = await session.send(session_command(command, plan))
            future.add_done_callback(partial(settle, command.seq, perf_counter()))
        sent += len(due)
        # At a rate: until the next command is due. Without one: let results come in.
        await asyncio.sleep(0 if rate is None else max(0.0, begin + sent / rate - perf_counter()))


CHUNK = 256


def _due(elapsed: float, sent: int, rate: float | None) -> int:
    """How many commands to send now: at least one, so that the pace is kept by the wait after it."""
    if rate is None:
        return CHUNK
    return max(1, min(CHUNK, int(elapsed * rate) - sent))
