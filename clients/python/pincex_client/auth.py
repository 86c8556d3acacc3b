"""`ExchangeClient.auth`: logging in, and what users do with what is their own.

async with ExchangeClient(target) as exchange:
    tokens = await exchange.auth.log_in("ann@example.org", password, code="123456")
async with ExchangeClient(target, credentials=LogIn(tokens)) as exchange:
    key = await exchange.auth.create_api_key("bot", ["READ", "TRADE"])
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import grpc.aio

from pincex.auth.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    types_pb2,
    user_service_pb2,
    user_service_pb2_grpc,
)
from pincex.common.v1 import access_pb2
from pincex_client import identity
from pincex_client.convert import from_wire, to_timestamp
from pincex_client.credentials import TokenSet, token_set
from pincex_client.paging import all_pages
from pincex_client.requests import named_value
from pincex_client.transport import Caller, new_id


class AuthClient:
    """Users' calls, on the public edge. Reached through `ExchangeClient.auth`.

    What changes something without an id is sent once: a repeat could use up a code or a password attempt.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        self._users = user_service_pb2_grpc.UserServiceStub(channel)

    async def _once(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=False)

    async def _again(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    # --- Becoming known ---------------------------------------------------------------------------------------------

    async def register(self, email: str, password: str) -> None:
        """Make a user; a code to verify the address comes by mail. The same for an address that is taken."""
        await self._once(self._auth.Register, auth_service_pb2.RegisterRequest(email=email, password=password))

    async def verify_email(self, email: str, code: str) -> None:
        """Prove the address with the code that was sent to it."""
        await self._once(self._auth.VerifyEmail, auth_service_pb2.VerifyEmailRequest(email=email, code=code))

    async def resend_verification(self, email: str) -> None:
        """Have another code sent, at most one a minute."""
        await self._once(self._auth.ResendVerification, auth_service_pb2.ResendVerificationRequest(email=email))

    async def log_in(
        self, email: str, password: str, *, code: str = "", account: str = "", scopes: Iterable[str] = ()
    ) -> TokenSet:
        """Open a session. Raises Unauthenticated: SECOND_FACTOR_REQUIRED asks for `code`."""
        request = auth_service_pb2.LoginRequest(
            email=email, password=password, code=code, account=account, scopes=_scopes(scopes)
        )
        return token_set(await self._once(self._auth.Login, request))

    async def log_out(self) -> None:
        """End the session that asks."""
        await self._once(self._auth.Logout, auth_service_pb2.LogoutRequest())

    async def request_password_reset(self, email: str) -> None:
        """Have a code sent that sets a new password; the same answer for every address."""
        request = auth_service_pb2.RequestPasswordResetRequest(email=email)
        await self._once(self._auth.RequestPasswordReset, request)

    async def reset_password(self, email: str, code: str, new_password: str) -> None:
        """Set a new password by code; all sessions end."""
        request = auth_service_pb2.ResetPasswordRequest(email=email, code=code, new_password=new_password)
        await self._once(self._auth.ResetPassword, request)

    # --- The user itself --------------------------------------------------------------------------------------------

    async def user(self) -> identity.User:
        """Who asks."""
        return from_wire(identity.User, await self._again(self._users.GetUser, user_service_pb2.GetUserRequest()))

    async def change_password(self, password: str, new_password: str) -> None:
        """Set a new password; other sessions end."""
        request = user_service_pb2.ChangePasswordRequest(password=password, new_password=new_password)
        await self._once(self._users.ChangePassword, request)

    async def begin_second_factor(self, password: str) -> tuple[str, str]:
        """A secret for an authenticator, and the same as `otpauth://` URI; it counts once it is confirmed."""
        request = user_service_pb2.BeginSecondFactorRequest(password=password)
        answer = await self._once(self._users.BeginSecondFactor, request)
        return answer.secret, answer.uri

    async def confirm_second_factor(self, code: str) -> tuple[str, ...]:
        """Turn the second factor on; returns the recovery codes, shown once."""
        request = user_service_pb2.ConfirmSecondFactorRequest(code=code)
        return tuple((await self._once(self._users.ConfirmSecondFactor, request)).codes)

    async def remove_second_factor(self, password: str, code: str) -> None:
        """Turn the second factor off."""
        request = user_service_pb2.RemoveSecondFactorRequest(password=password, code=code)
        await self._once(self._users.RemoveSecondFactor, request)

    async def renew_recovery_codes(self, password: str) -> tuple[str, ...]:
        """Ten new recovery codes; the old ones are void."""
        request = user_service_pb2.RenewRecoveryCodesRequest(password=password)
        return tuple((await self._once(self._users.RenewRecoveryCodes, request)).codes)

    # --- Sessions ---------------------------------------------------------------------------------------------------

    async def list_sessions(self) -> list[identity.LoginSession]:
        """Sessions that are open, the newest first."""
        pages = all_pages(self._again, self._users.ListSessions, user_service_pb2.ListSessionsRequest())
        return [from_wire(identity.LoginSession, one) async for page in pages for one in page.sessions]

    async def end_session(self, session_id: str) -> None:
        """End one."""
        await self._again(self._users.EndSession, user_service_pb2.EndSessionRequest(session_id=session_id))

    async def end_all_sessions(self) -> int:
        """End all, this one included; returns how many were open."""
        answer = await self._once(self._users.EndAllSessions, user_service_pb2.EndAllSessionsRequest())
        return int(answer.ended_count)

    # --- Keys and accounts ------------------------------------------------------------------------------------------

    async def create_api_key(
        self,
        label: str,
        scopes: Iterable[str],
        *,
        public_key: str = "",
        allowed_addresses: Iterable[str] = (),
        account: str = "",
        cancel_orders_on_revoke: bool = False,
        max_orders_per_second: int = 0,
        max_open_orders: int = 0,
        expire_time: datetime | None = None,
        code: str = "",
        request_id: str = "",
    ) -> identity.NewApiKey:
        """Make a key; with `public_key` (base64 of 32 bytes) an Ed25519 one, else HMAC-SHA256 with the secret returned."""
        request = user_service_pb2.CreateApiKeyRequest(
            label=label,
            algorithm=types_pb2.ED25519 if public_key else types_pb2.HMAC_SHA256,
            scopes=_scopes(scopes),
            allowed_addresses=list(allowed_addresses),
            account=account,
            cancel_orders_on_revoke=cancel_orders_on_revoke,
            max_orders_per_second=max_orders_per_second,
            max_open_orders=max_open_orders,
            expire_time=to_timestamp(expire_time) if expire_time is not None else None,
            public_key=public_key,
            code=code,
            request_id=request_id or new_id(),
        )
        answer = await self._again(self._users.CreateApiKey, request)
        return identity.NewApiKey(from_wire(identity.ApiKeyInfo, answer.key), answer.secret)

    async def list_api_keys(self) -> list[identity.ApiKeyInfo]:
        """The newest first, revoked ones included."""
        pages = all_pages(self._again, self._users.ListApiKeys, user_service_pb2.ListApiKeysRequest())
        return [from_wire(identity.ApiKeyInfo, one) async for page in pages for one in page.keys]

    async def get_api_key(self, api_key: str) -> identity.ApiKeyInfo:
        """One."""
        request = user_service_pb2.GetApiKeyRequest(api_key=api_key)
        return from_wire(identity.ApiKeyInfo, await self._again(self._users.GetApiKey, request))

    async def revoke_api_key(
        self, api_key: str, *, reason: str = "", cancel_orders: bool = False
    ) -> identity.ApiKeyInfo:
        """Revoke a key for good, and with `cancel_orders` cancel what it has open."""
        request = user_service_pb2.RevokeApiKeyRequest(api_key=api_key, reason=reason, cancel_orders=cancel_orders)
        return from_wire(identity.ApiKeyInfo, await self._again(self._users.RevokeApiKey, request))

    async def create_sub_account(self, name: str) -> identity.SubAccount:
        """Make an account beside the main one."""
        request = user_service_pb2.CreateSubAccountRequest(name=name)
        return from_wire(identity.SubAccount, await self._once(self._users.CreateSubAccount, request))

    async def list_sub_accounts(self) -> list[identity.SubAccount]:
        """By name."""
        pages = all_pages(self._again, self._users.ListSubAccounts, user_service_pb2.ListSubAccountsRequest())
        return [from_wire(identity.SubAccount, one) async for page in pages for one in page.sub_accounts]


def scope_value(scope: str) -> Any:
    """Number of a scope by its name, in any case. Raises ValueError."""
    return named_value(access_pb2.Access.Scope, "scope", scope)


def _scopes(scopes: Iterable[str]) -> list[Any]:
    return [scope_value(scope) for scope in scopes]
