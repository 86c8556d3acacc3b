"""`ExchangeClient.admin.users`: what operators and support do to users, keys and certificates, on the ops listener."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import grpc.aio
from google.protobuf import duration_pb2

from pincex.auth.v1 import auth_admin_service_pb2 as wire
from pincex.auth.v1 import auth_admin_service_pb2_grpc
from pincex.common.v1 import access_pb2
from pincex_client import identity
from pincex_client.auth import scope_value
from pincex_client.convert import from_wire
from pincex_client.paging import all_pages
from pincex_client.requests import named_value
from pincex_client.transport import Caller


class UserAdmin:
    """Every mutation may carry a `reason`, for the audit trail."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._admin = auth_admin_service_pb2_grpc.AuthAdminServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    # --- Accounts ---------------------------------------------------------------------------------------------------

    async def locked(self) -> list[identity.LockedAccount]:
        """Users that are locked now, the newest lock first."""
        pages = all_pages(self._call, self._admin.ListLockedAccounts, wire.ListLockedAccountsRequest())
        return [from_wire(identity.LockedAccount, one) async for page in pages for one in page.accounts]

    async def unlock(self, user_id: str, *, reason: str = "") -> identity.User:
        """Lift a lock, and forget the failed attempts behind it."""
        request = wire.UnlockAccountRequest(user_id=user_id, reason=reason)
        return from_wire(identity.User, await self._call(self._admin.UnlockAccount, request))

    async def lock(
        self, user_id: str, *, reason: str, duration: timedelta | None = None, cancel_orders: bool = False
    ) -> identity.User:
        """Lock a user, for good where no duration is given; its tokens, keys and streams end within a second."""
        request = wire.LockAccountRequest(user_id=user_id, reason=reason, cancel_orders=cancel_orders)
        if duration is not None:
            request.duration.CopyFrom(_duration(duration))
        return from_wire(identity.User, await self._call(self._admin.LockAccount, request))

    async def failed_attempts(
        self, *, window: timedelta | None = None, user_id: str = "", limit: int = 50
    ) -> list[identity.FailedAttempt]:
        """Failed log-ins of the last hour (or the window), the newest first."""
        request = wire.ListFailedAttemptsRequest(user_id=user_id)
        if window is not None:
            request.window.CopyFrom(_duration(window))
        found: list[identity.FailedAttempt] = []
        async for page in all_pages(self._call, self._admin.ListFailedAttempts, request, page_size=min(limit, 500)):
            found += [from_wire(identity.FailedAttempt, one) for one in page.attempts]
            if len(found) >= limit:
                break
        return found[:limit]

    async def many_addresses(
        self, *, window: timedelta | None = None, more_than: int = 3
    ) -> list[identity.ManyAddressUser]:
        """Users who opened sessions from more than so many addresses, most first."""
        request = wire.ListManyAddressUsersRequest(more_than=more_than)
        if window is not None:
            request.window.CopyFrom(_duration(window))
        pages = all_pages(self._call, self._admin.ListManyAddressUsers, request)
        return [from_wire(identity.ManyAddressUser, one) async for page in pages for one in page.users]

    async def log_out(self, user_id: str, *, reason: str = "", revoke_api_keys: bool = False) -> identity.LoggedOut:
        """End all sessions of a user, and its keys where asked."""
        request = wire.LogOutUserRequest(user_id=user_id, reason=reason, revoke_api_keys=revoke_api_keys)
        return from_wire(identity.LoggedOut, await self._call(self._admin.LogOutUser, request))

    async def get(self, user_id: str) -> identity.User:
        """One user."""
        request = wire.GetUserByAdminRequest(user_id=user_id)
        return from_wire(identity.User, await self._call(self._admin.GetUserByAdmin, request))

    async def find(self, *, email: str = "") -> list[identity.User]:
        """Users by id; `email` finds one."""
        pages = all_pages(self._call, self._admin.ListUsers, wire.ListUsersRequest(email=email))
        return [from_wire(identity.User, one) async for page in pages for one in page.users]

    async def set_roles(self, user_id: str, roles: Iterable[str], *, reason: str) -> identity.User:
        """Give a user these roles and no other."""
        values = [named_value(access_pb2.Role, "role", role) for role in roles]
        request = wire.SetUserRolesRequest(user_id=user_id, roles=values, reason=reason)
        return from_wire(identity.User, await self._call(self._admin.SetUserRoles, request))

    async def set_tier(self, user_id: str, tier: str, *, reason: str) -> identity.User:
        """Give a user the limits of a tier."""
        request = wire.SetUserTierRequest(user_id=user_id, tier=tier, reason=reason)
        return from_wire(identity.User, await self._call(self._admin.SetUserTier, request))

    # --- Keys and certificates --------------------------------------------------------------------------------------

    async def revoke_api_key(
        self, api_key: str, *, reason: str = "", cancel_orders: bool = False
    ) -> identity.ApiKeyInfo:
        """Revoke a compromised key for good, whoever it belongs to."""
        request = wire.RevokeAnyApiKeyRequest(api_key=api_key, reason=reason, cancel_orders=cancel_orders)
        return from_wire(identity.ApiKeyInfo, await self._call(self._admin.RevokeAnyApiKey, request))

    async def get_api_key(self, api_key: str) -> identity.ApiKeyInfo:
        """One key, whoever it belongs to."""
        request = wire.GetAnyApiKeyRequest(api_key=api_key)
        return from_wire(identity.ApiKeyInfo, await self._call(self._admin.GetAnyApiKey, request))

    async def rotate_signing_key(self, *, reason: str = "") -> str:
        """Make a new key for access tokens; returns its id. Sent once: each call makes one."""
        request = wire.RotateSigningKeyRequest(reason=reason)
        return str((await self._caller.call(self._admin.RotateSigningKey, request, repeatable=False)).key_id)

    async def retire_signing_key(self, key_id: str = "", *, reason: str) -> identity.RetiredSigningKeys:
        """Void a stolen key for access tokens, or all there are: what it signed is refused within a second.

        Sent once: without an id a repeat would void the key that takes its place.
        """
        request = wire.RetireSigningKeyRequest(key_id=key_id, reason=reason)
        answer = await self._caller.call(self._admin.RetireSigningKey, request, repeatable=bool(key_id))
        return from_wire(identity.RetiredSigningKeys, answer)

    async def allow_certificate(
        self, subject_uri: str, account: str, scopes: Iterable[str], *, reason: str = ""
    ) -> identity.Certificate:
        """Let a client certificate act on an account over mTLS."""
        request = wire.AllowCertificateRequest(
            subject_uri=subject_uri, account=account, scopes=[scope_value(scope) for scope in scopes], reason=reason
        )
        return from_wire(identity.Certificate, await self._call(self._admin.AllowCertificate, request))

    async def certificates(self) -> list[identity.Certificate]:
        """Certificates that are allowed, by name."""
        pages = all_pages(self._call, self._admin.ListCertificates, wire.ListCertificatesRequest())
        return [from_wire(identity.Certificate, one) async for page in pages for one in page.certificates]

    async def remove_certificate(self, subject_uri: str, *, reason: str = "") -> None:
        """Refuse a certificate again."""
        request = wire.RemoveCertificateRequest(subject_uri=subject_uri, reason=reason)
        await self._call(self._admin.RemoveCertificate, request)


def _duration(span: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(span)
    return message
