"""KYC on a real database, behind two gRPC servers of its own; who calls stands in a header, and the auth service is a table."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
from prometheus_client import CollectorRegistry

from exchange.kyc.config import KycConfig
from exchange.kyc.kyc import Kyc
from exchange.kyc.service.register import add_kyc_services
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import Environment
from exchange.runtime.database import Database as Pool
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.http_server import LOOPBACK
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics
from exchange.runtime.principal import ALL_SCOPES, Principal
from pincex.kyc.v1 import kyc_service_pb2 as pb
from pincex.kyc.v1 import kyc_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from exchange.kyc.screening import ScreeningProvider
    from exchange.kyc.worker import TradingTiers
    from exchange.runtime.audit.contract import AuditEntry
    from exchange.runtime.principal import Metadata
    from tests.postgres_fixture import Database

SECRET = "a secret of thirty-two characters and more"
NAME, STREET, CITY, POSTAL_CODE = "Zoë Quetzalcoatl-Ångström", "Xylophone Alley 4711", "Ouagadougou", "WX 90210"
BORN, COUNTRY, DOCUMENT = "1987-11-23", "BF", "QZ77AB4242"
PLANTED = (NAME, STREET, CITY, POSTAL_CODE, BORN, DOCUMENT)
"""Whatever holds one of these holds personal data."""
_NUMBERS = count(500_001)


def new_user() -> str:
    """The id of a user that no other test has."""
    return str(next(_NUMBERS))


def person(**changes: str) -> pb.PersonalData:
    """Data that suffices for tier 2."""
    data = pb.PersonalData(
        full_name=NAME,
        birth_date=BORN,
        country=COUNTRY,
        street_address=STREET,
        city=CITY,
        postal_code=POSTAL_CODE,
        document_number=DOCUMENT,
    )
    for name, value in changes.items():
        setattr(data, name, value)
    return data


@dataclass
class FakeAuth:
    """The trading tiers of users; `fails` is raised instead of an answer, `calls` is what was asked for."""

    tiers: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    fails: dict[str, ServiceError] = field(default_factory=dict)

    async def present(self, user: str) -> str | None:
        if user in self.fails:
            raise self.fails[user]
        return self.tiers.get(user)

    async def give(self, user: str, trading_tier: str, reason: str) -> None:
        self.calls.append((user, trading_tier))
        self.tiers[user] = trading_tier


@dataclass
class Trail:
    """Keeps what is to be recorded."""

    begun_entries: list[AuditEntry] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    happenings: list[AuditEntry] = field(default_factory=list)

    async def begun(self, entry: AuditEntry) -> None:
        self.begun_entries.append(entry)

    async def ended(self, entry: AuditEntry, outcome: str) -> None:
        self.outcomes.append(outcome)

    async def happened(self, entry: AuditEntry, outcome: str = "OK") -> None:
        self.happenings.append(entry)


class _ByHeader:
    """`x-user` is who calls; without it a caller of the development profile."""

    def __init__(self, roles: frozenset[str]) -> None:
        self._roles = roles

    def resolve(self, peer: str, metadata: Metadata) -> Principal:
        given = dict(metadata)
        user = str(given.get("x-user", ""))
        roles = frozenset({str(given["x-role"])}) if "x-role" in given else self._roles
        return Principal(account=user or "demo", roles=roles, source="token", scopes=ALL_SCOPES, user=user)

    def why_void(self, principal: Principal) -> None:
        return None


@dataclass
class Rig:
    """One instance."""

    kyc: Kyc
    auth: FakeAuth
    trail: Trail
    database: Database
    public: Any
    admin: Any
    log: io.BytesIO

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says, or does, asked by the owner of its tables."""
        with psycopg.connect(self.database.admin_url, autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description is not None else []

    async def submit(self, user: str, tier: int = 2, request_id: str = "r1", **changes: str) -> pb.KycStatus:
        """A user's submission."""
        if tier == 1:
            changes.setdefault("document_number", "")
        request = pb.SubmitKycRequest(tier=tier, request_id=request_id, data=person(**changes))
        answer: pb.KycStatus = await self.public.SubmitKyc(request, metadata=(("x-user", user),))
        return answer

    async def status(self, user: str) -> pb.KycStatus:
        """Where a user stands."""
        answer: pb.KycStatus = await self.public.GetKycStatus(pb.GetKycStatusRequest(), metadata=(("x-user", user),))
        return answer

    async def waiting(self, user: str, tier: int = 2, **more: str) -> str:
        """The number of a user's case that waits for a reviewer."""
        case_id = (await self.submit(user, tier, **more)).case_id
        assert await self.kyc.worker.round()
        return case_id

    async def approved(self, user: str, tier: int = 2, **more: str) -> str:
        """The number of a user's case that is approved."""
        case_id = await self.waiting(user, tier, **more)
        await self.decide("ApproveCase", case_id, "the one on the list is another")
        return case_id

    async def decide(self, method: str, case_id: str, reason: str = "", who: str = "90001") -> pb.KycCase:
        """A decision of a reviewer."""
        request = getattr(pb, f"{method}Request")(case_id=case_id, reason=reason)
        answer: pb.KycCase = await getattr(self.admin, method)(request, metadata=(("x-user", who),))
        return answer

    async def erase(self, user: str) -> None:
        """An administrator's order."""
        request = pb.ErasePersonalDataRequest(user_id=user, reason="asked for by letter")
        await self.admin.ErasePersonalData(request, metadata=(("x-user", "90002"), ("x-role", "admin")))

    async def look(self, case_id: str) -> pb.KycCase:
        """A case with its data."""
        answer: pb.KycCase = await self.admin.GetCase(
            pb.GetCaseRequest(case_id=case_id), metadata=(("x-user", "90001"),)
        )
        return answer

    def let_expire(self, user: str) -> None:
        """The tier's time is over."""
        for table in ("kyc_cases", "kyc_user_tiers"):
            self.rows(
                f"UPDATE {table} SET expire_at = clock_timestamp() - interval '1 s' WHERE user_id = %s AND expire_at IS NOT NULL",
                user,
            )

    def bytes_of_all_tables(self) -> bytes:
        """All that is in the database, as PostgreSQL sends it."""
        found = []
        with psycopg.connect(self.database.admin_url) as connection:
            tables = connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            assert ("public.kyc_cases",) in tables
            for (table,) in tables:
                with connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)") as copy:
                    found.append(b"".join(bytes(part) for part in copy))
        return b"".join(found)


def config(screening_list: Path | None = None, secret: str = SECRET, **more: str) -> KycConfig:
    """As the process reads it."""
    values = {"PINCEX_KYC_SECRET": secret, **more}
    if screening_list is not None:
        values["PINCEX_SCREENING_LIST"] = str(screening_list)
    return KycConfig.read(Environment(values))


@asynccontextmanager
async def running_kyc(
    database: Database,
    settings: KycConfig | None = None,
    *,
    auth: TradingTiers | None = None,
    screening: ScreeningProvider | None = None,
) -> AsyncIterator[Rig]:
    """An instance; several over one database are several instances. Its worker's rounds are made by the test."""
    log = io.BytesIO()
    configure_logging(service="wallet", instance="wallet-1", stream=log)
    pool = Pool(database.server.url(database.name, "wallet_user"), "wallet-1")
    await pool.open()
    fake, trail, registry = FakeAuth(), Trail(), CollectorRegistry()
    kyc = Kyc(
        settings or config(),
        pool,
        auth or fake,
        trail=trail,
        registry=registry,
        clock=SystemClock(),
        screening=screening,
    )
    metrics = GrpcMetrics(registry)
    public, ops = (
        GrpcServer(f"{LOOPBACK}:0", resolver=_ByHeader(roles), metrics=metrics, trail=trail)
        for roles in (frozenset[str](), frozenset({"operator"}))
    )
    add_kyc_services(public, ops, kyc)
    try:
        ports = [await server.start() for server in (public, ops)]
        async with (
            grpc.aio.insecure_channel(f"{LOOPBACK}:{ports[0]}") as channel,
            grpc.aio.insecure_channel(f"{LOOPBACK}:{ports[1]}") as ops_channel,
        ):
            users: Any = kyc_service_pb2_grpc.KycServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
            admin: Any = kyc_service_pb2_grpc.KycAdminServiceStub(ops_channel)  # type: ignore[no-untyped-call,unused-ignore]
            yield Rig(kyc, fake, trail, database, users, admin, log)
    finally:
        for server in (public, ops):
            await server.stop(0.1)
        await pool.close()


def away() -> ServiceError:
    """What the client says of a service that does not answer."""
    return ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)
