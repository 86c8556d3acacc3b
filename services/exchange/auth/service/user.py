"""UserService: what users do with what is their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from exchange.auth import users
from exchange.auth.contract import SecondFactor
from exchange.auth.instants import utc
from exchange.auth.login import Login
from exchange.auth.registration import Registration
from exchange.auth.service import positions
from exchange.auth.service.callers import caller, known_user
from exchange.auth.service.messages import session_message, sub_account_message, user_message
from exchange.auth.sessions import Sessions
from exchange.auth.store import Store
from exchange.auth.sub_accounts import SubAccounts
from exchange.auth.user_admin import UserAdmin
from exchange.runtime import paging
from exchange.runtime.clock import Clock
from pincex.auth.v1 import types_pb2, user_service_pb2_grpc
from pincex.auth.v1 import user_service_pb2 as pb


class KeyCalls(Protocol):
    """What users do with their API keys; each method is the call of its name."""

    async def create(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        """CreateApiKey."""
        ...

    async def page(self, request: pb.ListApiKeysRequest) -> pb.ListApiKeysResponse:
        """ListApiKeys."""
        ...

    async def get(self, request: pb.GetApiKeyRequest) -> types_pb2.ApiKey:
        """GetApiKey."""
        ...

    async def revoke(self, request: pb.RevokeApiKeyRequest) -> types_pb2.ApiKey:
        """RevokeApiKey."""
        ...


class UserService(user_service_pb2_grpc.UserServiceServicer):
    """See `proto/pincex/auth/v1/user_service.proto`."""

    def __init__(
        self,
        *,
        store: Store,
        login: Login,
        registration: Registration,
        second_factor: SecondFactor,
        sessions: Sessions,
        sub_accounts: SubAccounts,
        admin: UserAdmin,
        keys: KeyCalls,
        clock: Clock,
    ) -> None:
        self._store = store
        self._login = login
        self._registration = registration
        self._second_factor = second_factor
        self._sessions = sessions
        self._sub_accounts = sub_accounts
        self._admin = admin
        self._keys = keys
        self._clock = clock

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> types_pb2.User:
        """Who asks."""
        user_id, _ = known_user()
        found = await self._admin.get(user_id)
        return user_message(found.user, found.accounts, found.recovery_codes_left, utc(self._clock))

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Any) -> pb.ChangePasswordResponse:
        """Ends all other sessions."""
        user = await self._confirmed(request.password, context)
        await self._registration.change_password(user, request.new_password, keep_session=known_user()[1].session)
        return pb.ChangePasswordResponse()

    async def BeginSecondFactor(
        self, request: pb.BeginSecondFactorRequest, context: Any
    ) -> pb.BeginSecondFactorResponse:
        """A secret that counts once it is confirmed."""
        user = await self._confirmed(request.password, context)
        secret, uri = await self._second_factor.begin(user)
        return pb.BeginSecondFactorResponse(secret=secret, uri=uri)

    async def ConfirmSecondFactor(self, request: pb.ConfirmSecondFactorRequest, context: Any) -> pb.RecoveryCodes:
        """On, from here on."""
        return pb.RecoveryCodes(codes=await self._second_factor.confirm(await self._user(), request.code))

    async def RemoveSecondFactor(
        self, request: pb.RemoveSecondFactorRequest, context: Any
    ) -> pb.RemoveSecondFactorResponse:
        """Off; by password and code."""
        user = await self._confirmed(request.password, context)
        await self._second_factor.remove(user, request.code)
        return pb.RemoveSecondFactorResponse()

    async def RenewRecoveryCodes(self, request: pb.RenewRecoveryCodesRequest, context: Any) -> pb.RecoveryCodes:
        """The old ones are void."""
        user = await self._confirmed(request.password, context)
        return pb.RecoveryCodes(codes=await self._second_factor.renew_recovery_codes(user))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        """The newest first."""
        user_id, principal = known_user()
        size = paging.page_size(request.page_size)
        before = _last_seen(paging.read_token(request.page_token, user_id))
        found = await self._sessions.page(user_id, size + 1, before)
        response = pb.ListSessionsResponse(
            sessions=[session_message(session, principal.session) for session in found[:size]]
        )
        if len(found) > size:
            last = found[size - 1]
            position = f"{positions.microseconds(last.created_at)} {last.session_id}"
            response.next_page_token = paging.make_token(position, user_id)
        return response

    async def EndSession(self, request: pb.EndSessionRequest, context: Any) -> pb.EndSessionResponse:
        """One of the user's own."""
        user_id, _ = known_user()
        await self._sessions.end(user_id, request.session_id, "ended by its user")
        return pb.EndSessionResponse()

    async def EndAllSessions(self, request: pb.EndAllSessionsRequest, context: Any) -> pb.EndAllSessionsResponse:
        """The one that asks too."""
        user_id, _ = known_user()
        async with self._store.transaction() as connection:
            await users.by_id(connection, user_id, lock=True)
            count = await self._sessions.end_all(connection, user_id, "ended by its user")
        return pb.EndAllSessionsResponse(ended_count=count)

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        """Shows its secret once."""
        return await self._keys.create(request, context)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Any) -> pb.ListApiKeysResponse:
        """The newest first."""
        return await self._keys.page(request)

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Any) -> types_pb2.ApiKey:
        """One of the user's own."""
        return await self._keys.get(request)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> types_pb2.ApiKey:
        """For good."""
        return await self._keys.revoke(request)

    async def CreateSubAccount(self, request: pb.CreateSubAccountRequest, context: Any) -> pb.SubAccount:
        """A name that exists gives the same again."""
        user_id, _ = known_user()
        return sub_account_message(await self._sub_accounts.create(user_id, request.name))

    async def ListSubAccounts(self, request: pb.ListSubAccountsRequest, context: Any) -> pb.ListSubAccountsResponse:
        """By name."""
        user_id, _ = known_user()
        size = paging.page_size(request.page_size)
        found = await self._sub_accounts.page(user_id, size + 1, paging.read_token(request.page_token, user_id))
        response = pb.ListSubAccountsResponse(sub_accounts=[sub_account_message(each) for each in found[:size]])
        if len(found) > size:
            response.next_page_token = paging.make_token(found[size - 1].name, user_id)
        return response

    async def _user(self) -> users.User:
        user_id, _ = known_user()
        async with self._store.connection() as connection:
            return await users.by_id(connection, user_id)

    async def _confirmed(self, password: str, context: Any) -> users.User:
        """The user that asks, with its present password: a token that was left open is not enough."""
        user_id, _ = known_user()
        return await self._login.check_password(user_id, password, caller(context))


def _last_seen(position: str) -> tuple[datetime, str] | None:
    """When the last session of the page before was opened, and its id. Raises ServiceError INVALID_PAGE_TOKEN."""
    opened, _, session_id = position.partition(" ")
    found = positions.unpack(opened, 1)
    return None if found is None else (positions.instant_of(found[0]), session_id)
