"""Personal data is readable where it is shown and nowhere else, and after an erasure nowhere at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from exchange.kyc.vault import Vault
from exchange.runtime.config import Secret
from exchange.runtime.encryption import DecryptionError, Keyring
from pincex.kyc.v1 import kyc_service_pb2 as pb
from tests.integration.auth.auth_app import refused
from tests.integration.kyc.rig import PLANTED, SECRET, Rig, config, new_user, running_kyc

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres_fixture import Database

WRITTEN = "her sister Berengaria wrote to us"
"""By a reviewer: as personal as the rest."""


def readable(data: bytes) -> list[str]:
    return [text for text in (*PLANTED, WRITTEN) if text.encode() in data]


async def test_nothing_is_readable_in_the_database_in_logs_and_in_records(rig: Rig) -> None:
    user = new_user()
    case_id = await rig.waiting(user)
    await rig.look(case_id)
    await rig.decide("AskForMore", case_id, WRITTEN)
    await refused(rig.submit(user, request_id="r1", city="Elsewhere"))
    await rig.waiting(user, request_id="r2")
    await rig.decide("ApproveCase", case_id, WRITTEN)
    rig.let_expire(user)
    await rig.kyc.worker.round()
    assert (await rig.look(case_id)).message == WRITTEN
    assert readable(rig.bytes_of_all_tables()) == []
    entries = [*rig.trail.begun_entries, *rig.trail.happenings]
    assert readable(repr(entries).encode()) == []
    assert rig.log.getvalue()
    assert readable(rig.log.getvalue()) == []


async def test_each_look_and_each_decision_is_on_record_under_who_made_it(rig: Rig) -> None:
    case_id = await rig.waiting(new_user())
    await rig.look(case_id)
    await rig.decide("ApproveCase", case_id)
    actions = [(one.action.rpartition("/")[2], one.actor) for one in rig.trail.begun_entries if "Admin" in one.action]
    assert actions == [("GetCase", "90001"), ("ApproveCase", "90001")]
    assert all(f'"case_id":"{case_id}"' in one.details for one in rig.trail.begun_entries if "Admin" in one.action)


async def test_an_erasure_leaves_decisions_and_tiers_and_nothing_readable_even_with_the_secret(rig: Rig) -> None:
    user = new_user()
    first = await rig.approved(user, 1)
    second = await rig.waiting(user, 2, request_id="r2")
    sealed = [data for (data,) in rig.rows("SELECT sealed_data FROM kyc_cases WHERE user_id = %s", user)]
    assert len(sealed) == 2
    await rig.erase(user)
    await rig.erase(user)
    for case_id, status in ((first, pb.EXPIRED), (second, pb.REJECTED)):
        shown = await rig.look(case_id)
        assert (shown.status, shown.erased, shown.HasField("data"), shown.message) == (status, True, False, "")
    assert (await rig.look(first)).decided_by == "90001", "the decision stays"
    assert (await rig.kyc.tiers.of(user)).tier == 0
    tier = await rig.admin.GetUserTier(pb.GetUserTierRequest(user_id=user))
    assert [(one.tier, one.cause) for one in tier.changes] == [(0, "erased"), (1, "approved")]
    # What somebody kept of the cases does not open with any key that the secret still gives.
    boxes = Keyring(Secret(SECRET), b"pincex-kyc-v1").box("data-key")
    for (wrapped,) in rig.rows("SELECT wrapped FROM kyc_keys WHERE user_id = %s", user):
        assert wrapped is None
    for data in sealed:
        with pytest.raises(DecryptionError):
            boxes.decrypt(data, f"data:{first}:{user}")
    assert rig.rows("SELECT count(request_hash), count(*) FROM kyc_submissions WHERE user_id = %s", user) == [(0, 2)]


async def test_what_is_erased_can_be_neither_decided_nor_repeated_but_begun_anew(rig: Rig) -> None:
    user = new_user()
    case_id = await rig.waiting(user)
    await rig.erase(user)
    for method in ("ApproveCase", "AskForMore"):
        assert (await refused(rig.decide(method, case_id, "late"))).reason == "KYC_CASE_STATE"
    assert (await refused(rig.submit(user))).reason == "DUPLICATE_ID"
    assert await rig.waiting(user, request_id="r2") != case_id
    assert (await rig.look(case_id)).erased
    assert len(rig.rows("SELECT key_id FROM kyc_keys WHERE user_id = %s", user)) == 2


async def test_what_was_sealed_for_one_case_does_not_open_in_another(rig: Rig) -> None:
    user = new_user()
    old = await rig.waiting(user)
    await rig.decide("RejectCase", old, "not readable")
    mine, theirs = await rig.waiting(user, request_id="r2"), await rig.waiting(new_user())
    for other in (old, theirs):
        rig.rows(
            "UPDATE kyc_cases SET sealed_data = (SELECT sealed_data FROM kyc_cases WHERE case_id = %s) WHERE case_id = %s",
            int(other),
            int(mine),
        )
        assert (await refused(rig.look(mine))).reason == "INTERNAL"
        assert (await rig.look(other)).data.city


async def test_with_another_secret_nothing_is_read_and_nothing_is_added(
    database: Database, screening_list: Path
) -> None:
    async with running_kyc(database, config(screening_list)) as rig:
        case_id = await rig.waiting(new_user())
    other = config(screening_list, secret="another secret of thirty-two characters")
    async with running_kyc(database, other) as rig:
        assert (await refused(rig.look(case_id))).reason == "INTERNAL"
        assert (await refused(rig.submit(new_user()))).reason == "INTERNAL"
        assert rig.rows("SELECT count(*) FROM kyc_keys") == [(1,)]
        assert b"another PINCEX_KYC_SECRET" in rig.log.getvalue()


async def test_a_key_under_another_secret_does_not_open(rig: Rig) -> None:
    user = new_user()
    case_id = await rig.waiting(user)
    rig.rows("UPDATE kyc_keys SET wrapped = 'nothing of ours' WHERE user_id = %s", user)
    assert (await refused(rig.look(case_id))).reason == "INTERNAL"


async def test_the_wallets_role_adds_to_histories_and_removes_nothing(rig: Rig) -> None:
    case_id = int(await rig.approved(new_user()))
    statements = (
        "DELETE FROM kyc_decisions",
        "UPDATE kyc_tier_changes SET tier = 2",
        "DELETE FROM kyc_cases",
        f"UPDATE kyc_cases SET user_id = '1' WHERE case_id = {case_id}",
        "UPDATE kyc_keys SET user_id = '1'",
    )
    url = rig.database.server.url(rig.database.name, "wallet_user")
    for statement in statements:
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
    for role in ("trading_user", "settlement_user", "auth_user"):
        with (
            psycopg.connect(rig.database.server.url(rig.database.name, role)) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SELECT * FROM kyc_cases")
    with psycopg.connect(rig.database.admin_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM kyc_decisions")


def test_a_hash_of_a_request_needs_the_secret() -> None:
    from exchange.kyc.person import Person

    someone = Person("Ann Other", "1990-01-31", "DE", "Street 1", "Town")
    mine, theirs = Vault(Secret(SECRET)), Vault(Secret("another secret of thirty-two characters"))
    assert mine.request_hash("1", 1, someone) == Vault(Secret(SECRET)).request_hash("1", 1, someone)
    assert mine.request_hash("1", 1, someone) != theirs.request_hash("1", 1, someone)
    assert mine.request_hash("1", 2, someone) != mine.request_hash("1", 1, someone)
