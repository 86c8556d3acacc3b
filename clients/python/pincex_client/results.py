"""What became of one command of a session or batch."""

from decimal import Decimal

from pincex.common.v1 import errors_pb2
from pincex.trading.v1 import order_session_pb2, types_pb2
from pincex_client.errors import ExchangeError, error_of_reason


class CommandResult:
    """A result as sent, read on demand: at 100,000 a second most fields are never looked at."""

    __slots__ = ("_message",)

    def __init__(self, message: order_session_pb2.CommandResult) -> None:
        self._message = message

    @property
    def order_id(self) -> str:
        """The order that was placed or meant; empty where none was found or made."""
        return self._message.order_id

    @property
    def client_order_id(self) -> str:
        """The placed order's client id, where it had one."""
        return self._message.client_order_id

    @property
    def sequence(self) -> int:
        """The engine's sequence of the command; 0 if it was refused before it got one."""
        return self._message.sequence

    @property
    def status(self) -> str:
        """Where the order stood right after the command; empty if there is none."""
        value = self._message.status
        return types_pb2.OrderStatus.Name(value) if value else ""

    @property
    def filled_quantity(self) -> Decimal:
        """What was filled in all."""
        return Decimal(self._message.filled_quantity or "0")

    @property
    def open_quantity(self) -> Decimal:
        """What was still open."""
        return Decimal(self._message.open_quantity or "0")

    @property
    def filled_notional(self) -> Decimal:
        """Exact sum of price x quantity of the fills."""
        return Decimal(self._message.filled_notional or "0")

    @property
    def cancel_reason(self) -> str:
        """Why the order was cancelled, if it was."""
        value = self._message.cancel_reason
        return types_pb2.CancelReason.Name(value) if value else ""

    @property
    def cancelled_count(self) -> int:
        """Only for a cancel-all: how many orders."""
        return self._message.cancelled_count

    @property
    def refused(self) -> bool:
        """Whether the command was refused and changed nothing."""
        return self._message.reason != 0

    @property
    def reason(self) -> str:
        """Name of the `ErrorReason` of a refusal, else empty."""
        value = self._message.reason
        if not value:
            return ""
        known = value in errors_pb2.ErrorReason.values()
        return errors_pb2.ErrorReason.Name(value) if known else str(int(value))

    @property
    def message(self) -> str:
        """What the refusal says to people."""
        return self._message.message

    def error(self) -> ExchangeError | None:
        """The refusal as an exception, or None."""
        return error_of_reason(self.reason, self.message) if self.refused else None

    def raise_if_refused(self) -> "CommandResult":
        """Return this result, or raise its refusal."""
        error = self.error()
        if error is not None:
            raise error
        return self

    def __repr__(self) -> str:
        """One line for logs."""
        what = self.reason or self.status or "done"
        return f"CommandResult({what}, order_id={self.order_id!r}, sequence={self.sequence})"
