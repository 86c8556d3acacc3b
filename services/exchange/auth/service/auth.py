"""AuthService: how callers become known."""

from __future__ import annotations

from typing import Any, Final, Protocol

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.auth.login import Credentials, Login
from exchange.auth.registration import Registration
from exchange.auth.service.callers import caller, known_user
from exchange.auth.service.messages import scope_names, tokens_message
from exchange.auth.sessions import Sessions
from exchange.auth.signing_keys import SigningKeys
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.auth.v1 import auth_service_pb2 as pb
from pincex.auth.v1 import auth_service_pb2_grpc, types_pb2

_KEY_SET_TYPE: Final = "application/jwk-set+json"


class KeyExchange(Protocol):
    """Gives tokens to whoever signed with an API key."""

    async def exchange(self, context: Any) -> types_pb2.Tokens:
        """For the key of the call that runs now. Raises ServiceError PERMISSION_DENIED where it has none."""
        ...


class AuthService(auth_service_pb2_grpc.AuthServiceServicer):
    """See `proto/pincex/auth/v1/auth_service.proto`."""

    def __init__(
        self,
        *,
        registration: Registration,
        login: Login,
        sessions: Sessions,
        signing_keys: SigningKeys,
        key_exchange: KeyExchange,
        clock: Clock,
        signature_window_ms: int,
    ) -> None:
        self._registration = registration
        self._login = login
        self._sessions = sessions
        self._signing_keys = signing_keys
        self._key_exchange = key_exchange
        self._clock = clock
        self._signature_window_ms = signature_window_ms

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        """The same answer for every address."""
        await self._registration.register(request.email, request.password, caller(context))
        return pb.RegisterResponse()

    async def VerifyEmail(self, request: pb.VerifyEmailRequest, context: Any) -> pb.VerifyEmailResponse:
        """By the code that was sent."""
        await self._registration.verify_email(request.email, request.code, caller(context))
        return pb.VerifyEmailResponse()

    async def ResendVerification(
        self, request: pb.ResendVerificationRequest, context: Any
    ) -> pb.ResendVerificationResponse:
        """The same answer for every address."""
        await self._registration.resend_verification(request.email, caller(context))
        return pb.ResendVerificationResponse()

    async def Login(self, request: pb.LoginRequest, context: Any) -> types_pb2.Tokens:
        """Open a session."""
        given = Credentials(request.email, request.password, request.code, request.account, scope_names(request.scopes))
        return tokens_message(await self._login.open(given, caller(context)))

    async def RefreshTokens(self, request: pb.RefreshTokensRequest, context: Any) -> types_pb2.Tokens:
        """New tokens for an unused refresh token."""
        if not request.refresh_token:
            raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "refresh_token"})
        return tokens_message(await self._sessions.refresh(request.refresh_token, caller(context)))

    async def ExchangeApiKey(self, request: pb.ExchangeApiKeyRequest, context: Any) -> types_pb2.Tokens:
        """The edge has verified the signature; the token that it put in says which key it was."""
        return await self._key_exchange.exchange(context)

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, context: Any
    ) -> pb.RequestPasswordResetResponse:
        """The same answer for every address."""
        await self._registration.request_password_reset(request.email, caller(context))
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Any) -> pb.ResetPasswordResponse:
        """By the code that was sent."""
        await self._registration.reset_password(request.email, request.code, request.new_password, caller(context))
        return pb.ResetPasswordResponse()

    async def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        """End the session of the token; one of a key or certificate has none to end."""
        user_id, principal = known_user()
        if not principal.session:
            raise ServiceError(
                ErrorReason.PERMISSION_DENIED, "this token stands for no session: revoke its key instead"
            )
        await self._sessions.end(user_id, principal.session, "logged out")
        return pb.LogoutResponse()

    async def GetKeySet(self, request: pb.GetKeySetRequest, context: Any) -> HttpBody:
        """For Envoy, and for whoever verifies tokens."""
        return HttpBody(content_type=_KEY_SET_TYPE, data=self._signing_keys.key_set())

    async def GetServerTime(self, request: pb.GetServerTimeRequest, context: Any) -> pb.GetServerTimeResponse:
        """To the nanosecond and to the millisecond."""
        now = self._clock.time_ns()
        return pb.GetServerTimeResponse(
            server_time=Timestamp(seconds=now // 1_000_000_000, nanos=now % 1_000_000_000),
            unix_ms=now // 1_000_000,
            window_ms=self._signature_window_ms,
        )
