"""One client: what it asks for, who it is, and what it is told."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.websocket import messages, requests
from exchange.websocket.channels import read_key
from exchange.websocket.credentials import checked_account, checked_token
from exchange.websocket.limits import Allowance
from exchange.websocket.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.websocket.channels import Key
    from exchange.websocket.counts import Counts
    from exchange.websocket.credentials import Credentials
    from exchange.websocket.feed import Feeds
    from exchange.websocket.limits import Limits
    from exchange.websocket.outbox import Outbox
    from exchange.websocket.requests import Request
    from exchange.websocket.updates import Source

_DEFECT: Final = ServiceError(ErrorReason.INTERNAL)


class Exchange(Protocol):
    """The public edge, as clients of this process need it."""

    def source(self, key: Key) -> Source:
        """A public channel."""
        ...

    def own_source(self, key: Key, credentials: Callable[[], Credentials]) -> Source:
        """A private one, by the credentials of the moment at which it is opened."""
        ...

    async def account(self, credentials: Credentials) -> str:
        """Whose they are. Raises ServiceError where the exchange refuses them."""
        ...

    async def order(self, op: str, body: dict[str, Any], credentials: Credentials) -> dict[str, Any]:
        """Carry out an operation of ORDER_OPS. Raises ServiceError."""
        ...


class Session:
    """See the module. Requests are read in order; orders are carried out in order, beside everything else."""

    def __init__(
        self,
        exchange: Exchange,
        feeds: Feeds,
        outbox: Outbox,
        limits: Limits,
        counts: Counts,
        credentials: Credentials,
        account: str,
        give_up: Callable[[], None],
    ) -> None:
        """`account` is empty where nobody has checked the credentials. `give_up` is called for who sends far too much."""
        self.credentials = credentials
        self.account = account
        self.subscriptions: dict[Key, Subscription] = {}
        self._exchange = exchange
        self._feeds = feeds
        self._outbox = outbox
        self._limits = limits
        self._counts = counts
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._allowance = Allowance(limits.messages_per_second, limits.messages_burst, self._loop.time())
        self._refused = 0
        self._orders: asyncio.Queue[Request] = asyncio.Queue(limits.waiting_orders)
        self._worker: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.orders_under_way = 0
        # When it last asked for something or subscribed to something, on the loop's clock.
        self.active_at = self._loop.time()
        self._expect_expiry()

    @property
    def channels(self) -> set[str]:
        """Names of the channels that it follows."""
        return {key.channel for key in self.subscriptions}

    async def take(self, text: str | bytes) -> None:
        """One message of the client. Never raises for what is wrong with it: the client is told."""
        self._counts.messages_in += 1
        self.active_at = self._loop.time()
        wait_s = self._allowance.spend(self.active_at)
        try:
            request = requests.read(text)
        except requests.Unreadable as error:
            self._refuse(error.error, error.request_id, error.op)
            if wait_s:
                self._too_many()
            return
        if wait_s:
            limit = f"{self._limits.messages_per_second:g} messages a second"
            refusal = ServiceError(ErrorReason.QUOTA_EXCEEDED, metadata={"limit": limit}, retry_after_seconds=wait_s)
            self._refuse(refusal, request.id, request.op)
            self._too_many()
            return
        self._refused = 0
        try:
            await self._carry_out(request)
        except ServiceError as error:
            self._refuse(error, request.id, request.op)
        except Exception:  # noqa: BLE001 - the client must hear of it, whatever it was
            structlog.get_logger("session").exception("a request has failed", op=request.op, id=request.id)
            self._refuse(_DEFECT, request.id, request.op)

    async def close(self) -> None:
        """The connection is gone. An order that is being carried out is not called back."""
        self._outbox.close()
        if self._expiry is not None:
            self._expiry.cancel()
        subscriptions, self.subscriptions = list(self.subscriptions.values()), {}
        for subscription in subscriptions:
            subscription.stop()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    # --- of the subscriptions ---

    def subscription_failed(self, subscription: Subscription, error: ServiceError) -> None:
        """See `subscription.Owner`."""
        if self.subscriptions.get(subscription.key) is subscription:
            del self.subscriptions[subscription.key]
            subscription.stop()
            self._refuse(error, subscription.request_id, requests.SUBSCRIBE)

    def subscription_ended(self, subscription: Subscription, error: ServiceError, resume_token: str) -> None:
        """See `subscription.Owner`."""
        if self.subscriptions.get(subscription.key) is subscription:
            del self.subscriptions[subscription.key]
            subscription.stop()
            self._outbox.put(messages.ended(subscription.key, error, resume_token))

    # --- operations ---

    async def _carry_out(self, request: Request) -> None:
        if request.op in requests.ORDER_OPS:
            self._queue_order(request)
        elif request.op == requests.SUBSCRIBE:
            self._subscribe(request)
        elif request.op == requests.UNSUBSCRIBE:
            self._unsubscribe(request)
        elif request.op == requests.LOGIN:
            await self._log_in(request)
        else:
            self._outbox.put(messages.pong(request.id, time.time()))

    def _subscribe(self, request: Request) -> None:
        key = read_key(request.fields)
        token = requests.resume_token_of(request)
        earlier = self.subscriptions.pop(key, None)
        if earlier is not None:
            # Who has lost track begins again.
            earlier.stop()
        elif len(self.subscriptions) >= self._limits.subscriptions:
            raise ServiceError(ErrorReason.TOO_MANY_SUBSCRIPTIONS, metadata={"limit": self._limits.subscriptions})
        subscription = self.subscriptions[key] = Subscription(key, request.id, self._outbox, self)
        if key.private:
            source = self._exchange.own_source(key, lambda: self.credentials)
            subscription.start_own(source, token, self._limits.start_s)
        else:
            subscription.start_shared(self._feeds, token)

    def _unsubscribe(self, request: Request) -> None:
        key = read_key(request.fields)
        subscription = self.subscriptions.pop(key, None)
        if subscription is not None:
            subscription.stop()
        self._outbox.put(messages.unsubscribed(request.id, key))

    async def _log_in(self, request: Request) -> None:
        token, account = request.fields.get("token", ""), request.fields.get("account", "")
        if not token and not account:
            raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "token"})
        credentials = replace(
            self.credentials, token=checked_token(token) if token else "", account=checked_account(account)
        )
        found = await self._exchange.account(credentials)
        if self.account and found != self.account and any(key.private for key in self.subscriptions):
            message = "this connection follows another account: unsubscribe from its channels first"
            raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, message)
        self.credentials = credentials
        self.account = found
        self._expect_expiry()
        self._outbox.put(messages.logged_in(request.id, found, credentials.expires))

    def _queue_order(self, request: Request) -> None:
        requests.body_of(request)
        if self._orders.full():
            limit = f"{self._limits.waiting_orders} requests of one connection"
            raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": limit})
        self._orders.put_nowait(request)
        self.orders_under_way += 1
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            request = await self._orders.get()
            try:
                body = await self._exchange.order(request.op, requests.body_of(request), self.credentials)
            except ServiceError as error:
                self._refuse(error, request.id, request.op)
            except Exception:  # noqa: BLE001 - the client must hear of it, whatever it was
                structlog.get_logger("session").exception("an order has failed", op=request.op, id=request.id)
                self._refuse(_DEFECT, request.id, request.op)
            else:
                self._outbox.put(messages.result(request.id, request.op, body))
            finally:
                self.orders_under_way -= 1

    # --- what is told ---

    def _refuse(self, error: ServiceError, request_id: str, op: str) -> None:
        self._counts.refused[error.reason_name] += 1
        self._outbox.put(messages.error(error, request_id, op))

    def _too_many(self) -> None:
        self._refused += 1
        if self._refused >= self._limits.refused_messages:
            self._give_up()

    def _expect_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        expires = self.credentials.expires if self.account else 0.0
        if expires:
            self._expiry = self._loop.call_later(max(0.0, expires - time.time()), self._expired)

    def _expired(self) -> None:
        self._expiry = None
        how = "connect again, and resume" if self.credentials.of_certificate else "log in with a new one"
        message = f"the token has expired: {how}; subscriptions go on, orders are refused meanwhile"
        self._outbox.put(messages.notice(ServiceError(ErrorReason.TOKEN_EXPIRED, message)))
