"""AuthAdminService: what operators and support see of users and do to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from exchange.auth.certificates import Certificates
from exchange.auth.instants import utc
from exchange.auth.keys import ApiKeys
from exchange.auth.service import positions
from exchange.auth.service.api_keys import KeyAdminMethods
from exchange.auth.service.callers import standing
from exchange.auth.service.messages import interval, reason_text, role_names, timestamp, user_message
from exchange.auth.signing_keys import MAX_KEY_ID, SigningKeys
from exchange.auth.suspicion import Suspicion
from exchange.auth.user_admin import LockedUser, UserAdmin, UserDetails
from exchange.auth.users import TIERS, normal_email, user_number
from exchange.runtime import paging
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, reject
from pincex.auth.v1 import auth_admin_service_pb2 as pb
from pincex.auth.v1 import auth_admin_service_pb2_grpc, types_pb2

DEFAULT_WINDOW: Final = timedelta(hours=1)
MAX_WINDOW: Final = timedelta(days=30)
DEFAULT_MORE_THAN: Final = 3
DEFAULT_ATTEMPTS: Final = 50
# Longer than anybody means: what has no end is locked without a duration.
MAX_LOCK: Final = timedelta(days=3_650)


class AuthAdminService(KeyAdminMethods, auth_admin_service_pb2_grpc.AuthAdminServiceServicer):
    """See `proto/pincex/auth/v1/auth_admin_service.proto`. The guard has checked the role and writes the audit record."""

    def __init__(
        self,
        *,
        admin: UserAdmin,
        suspicion: Suspicion,
        keys: ApiKeys,
        certificates: Certificates,
        signing_keys: SigningKeys,
        clock: Clock,
    ) -> None:
        self._admin = admin
        self._keys = keys
        self._certificates = certificates
        self._suspicion = suspicion
        self._signing_keys = signing_keys
        self._clock = clock

    async def ListLockedAccounts(
        self, request: pb.ListLockedAccountsRequest, context: Any
    ) -> pb.ListLockedAccountsResponse:
        """The newest lock first."""
        size = paging.page_size(request.page_size)
        last = positions.unpack(paging.read_token(request.page_token), 2)
        before = None if last is None else (positions.instant_of(last[0]), last[1])
        found = await self._admin.locked(size + 1, before)
        response = pb.ListLockedAccountsResponse(accounts=map(_locked_message, found[:size]))
        if len(found) > size:
            user = found[size - 1].user
            assert user.locked_at is not None
            position = positions.pack(positions.microseconds(user.locked_at), user.user_id)
            response.next_page_token = paging.make_token(position)
        return response

    async def UnlockAccount(self, request: pb.UnlockAccountRequest, context: Any) -> types_pb2.User:
        """Lift a lock, whoever made it. The runbook gives neither body nor reason."""
        reason_text(request.reason)
        return self._shown(await self._admin.unlock(user_number(request.user_id), by=standing()))

    async def LockAccount(self, request: pb.LockAccountRequest, context: Any) -> types_pb2.User:
        """Lock altogether."""
        user_id = user_number(request.user_id)
        reason = reason_text(request.reason, required=True)
        duration = interval("duration", request.duration, MAX_LOCK) if request.HasField("duration") else None
        return self._shown(
            await self._admin.lock(
                user_id, reason, by=standing(), duration=duration, cancel_orders=request.cancel_orders
            )
        )

    async def ListFailedAttempts(
        self, request: pb.ListFailedAttemptsRequest, context: Any
    ) -> pb.ListFailedAttemptsResponse:
        """The newest first."""
        size = paging.page_size(request.page_size) if request.page_size else DEFAULT_ATTEMPTS
        window = interval("window", request.window, MAX_WINDOW) if request.HasField("window") else DEFAULT_WINDOW
        user_id = user_number(request.user_id) if request.user_id else None
        filters = (str(window), user_id)
        last = positions.unpack(paging.read_token(request.page_token, *filters), 2)
        before = None if last is None else (positions.instant_of(last[0]), last[1])
        found = await self._suspicion.failed_attempts(utc(self._clock) - window, user_id, size + 1, before)
        response = pb.ListFailedAttemptsResponse()
        for attempt in found[:size]:
            response.attempts.add(
                user_id="" if attempt.user_id is None else str(attempt.user_id),
                ip_address=attempt.address,
                attempt_time=timestamp(attempt.attempt_time),
                reason=attempt.reason,
            )
        if len(found) > size:
            attempt = found[size - 1]
            position = positions.pack(positions.microseconds(attempt.attempt_time), attempt.attempt_id)
            response.next_page_token = paging.make_token(position, *filters)
        return response

    async def ListManyAddressUsers(
        self, request: pb.ListManyAddressUsersRequest, context: Any
    ) -> pb.ListManyAddressUsersResponse:
        """Most addresses first. The pages of one list look at one window: where it began stands in their tokens."""
        size = paging.page_size(request.page_size)
        window = interval("window", request.window, MAX_WINDOW) if request.HasField("window") else DEFAULT_WINDOW
        more_than = request.more_than or DEFAULT_MORE_THAN
        filters = (str(window), more_than)
        last = positions.unpack(paging.read_token(request.page_token, *filters), 3)
        since = utc(self._clock) - window if last is None else positions.instant_of(last[0])
        after = None if last is None else (last[1], last[2])
        found = await self._suspicion.many_addresses(since, more_than, size + 1, after)
        response = pb.ListManyAddressUsersResponse()
        for one in found[:size]:
            response.users.add(user_id=str(one.user_id), address_count=one.address_count, ip_addresses=one.addresses)
        if len(found) > size:
            one = found[size - 1]
            position = positions.pack(positions.microseconds(since), one.address_count, one.user_id)
            response.next_page_token = paging.make_token(position, *filters)
        return response

    async def LogOutUser(self, request: pb.LogOutUserRequest, context: Any) -> pb.LogOutUserResponse:
        """End its sessions, and its keys if asked for."""
        sessions, keys = await self._admin.log_out(
            user_number(request.user_id),
            reason_text(request.reason),
            by=standing(),
            revoke_api_keys=request.revoke_api_keys,
        )
        return pb.LogOutUserResponse(ended_sessions=sessions, revoked_api_keys=keys)

    async def GetUserByAdmin(self, request: pb.GetUserByAdminRequest, context: Any) -> types_pb2.User:
        """One."""
        return self._shown(await self._admin.get(user_number(request.user_id)))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """By id, or the one with an address."""
        size = paging.page_size(request.page_size)
        after = paging.number_position(request.page_token, request.email)
        if request.email:
            return pb.ListUsersResponse(
                users=map(self._shown, await self._admin.with_email(normal_email(request.email)))
            )
        found = await self._admin.page(size + 1, after)
        response = pb.ListUsersResponse(users=map(self._shown, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].user.user_id), request.email)
        return response

    async def SetUserRoles(self, request: pb.SetUserRolesRequest, context: Any) -> types_pb2.User:
        """These roles and no other."""
        user_id = user_number(request.user_id)
        roles = role_names(request.roles)
        reason = reason_text(request.reason, required=True)
        return self._shown(await self._admin.set_roles(user_id, roles, reason, by=standing()))

    async def SetUserTier(self, request: pb.SetUserTierRequest, context: Any) -> types_pb2.User:
        """The limits of a tier."""
        user_id = user_number(request.user_id)
        if request.tier not in TIERS:
            reject(ErrorReason.INVALID_FIELD, field="tier", value=request.tier)
        reason = reason_text(request.reason, required=True)
        return self._shown(await self._admin.set_tier(user_id, request.tier, reason, by=standing()))

    async def RotateSigningKey(self, request: pb.RotateSigningKeyRequest, context: Any) -> pb.RotateSigningKeyResponse:
        """The next key, or the one that waits to sign already."""
        reason_text(request.reason)
        return pb.RotateSigningKeyResponse(key_id=await self._signing_keys.rotate())

    async def RetireSigningKey(self, request: pb.RetireSigningKeyRequest, context: Any) -> pb.RetireSigningKeyResponse:
        """What it signed is void within a second."""
        reason = reason_text(request.reason, required=True)
        if len(request.key_id) > MAX_KEY_ID:
            reject(ErrorReason.INVALID_FIELD, field="key_id", value=request.key_id)
        retired, signs = await self._signing_keys.retire(request.key_id, reason)
        return pb.RetireSigningKeyResponse(
            retired_key_ids=retired, key_id=signs.key_id, signs_from_time=timestamp(signs.signs_from)
        )

    def _shown(self, found: UserDetails) -> types_pb2.User:
        return user_message(found.user, found.accounts, found.recovery_codes_left, utc(self._clock))


def _locked_message(found: LockedUser) -> pb.LockedAccount:
    user = found.user
    assert user.locked_at is not None
    message = pb.LockedAccount(
        user_id=str(user.user_id),
        email=user.email,
        reason=user.lock_reason,
        locked_time=timestamp(user.locked_at),
        failed_attempts=found.failed_attempts,
    )
    if user.locked_until is not None:
        message.locked_until_time.CopyFrom(timestamp(user.locked_until))
    return message
