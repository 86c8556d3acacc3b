"""KYC on the whole running exchange: the command line, REST, the wallet's process, the audit trail."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.edge_http import call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack_fixture import ExchangeStack

    Run = Callable[..., Any]

NAME, CITY = "Thelonius Quetzalcoatl", "Ouagadougou"
PERSON = {
    "full_name": NAME,
    "birth_date": "1987-11-23",
    "country": "BF",
    "street_address": "Xylophone Alley 4711",
    "city": CITY,
}
DOCUMENT = {"document_number": "QZ77AB4242"}


@pytest.fixture
def account() -> str:
    """An account that no other test uses."""
    return f"kyc-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pincex(exchange_stack: ExchangeStack) -> Run:
    """Runs `pincex ARGUMENTS --json` and returns what it prints."""

    def run(*arguments: str, given: object = None, status: int = 0) -> Any:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pincex_client.cli import main; sys.exit(main())",
                *arguments,
                "--json",
            ],
            env=exchange_stack.folder.environment,
            cwd=exchange_stack.home.parent,
            input=None if given is None else json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else None

    return run


def test_a_user_is_approved_from_the_command_line_and_forgotten_again(
    exchange_stack: ExchangeStack, pincex: Run, account: str
) -> None:
    submitted = pincex("kyc", "submit", "2", "--file", "-", "--account", account, given=PERSON | DOCUMENT)
    case_id = submitted["case_id"]
    url = f"{exchange_stack.edge_url}/api/v1/kyc"
    mine = {"x-pincex-account": account}
    eventually(lambda: call(url, headers=mine).json()["status"] == "IN_REVIEW", "the case is screened")
    listed = pincex("admin", "kyc", "cases")
    assert [one["requested_tier"] for one in listed if one["case_id"] == case_id] == [2]
    assert NAME not in json.dumps(listed)
    assert pincex("admin", "kyc", "show", case_id)["data"]["city"] == CITY

    refused = pincex("--account", account, "admin", "kyc", "approve", case_id, "--reason", "mine", status=1)
    assert refused["error"]["reason"] == "FOUR_EYES"
    approved = pincex("admin", "kyc", "approve", case_id, "--reason", f"{NAME} is well known")
    assert (approved["status"], approved["decided_by"]) == ("APPROVED", "ops-local")
    tier = pincex("admin", "kyc", "tier", f"account:{account}")
    assert [one["cause"] for one in tier["changes"]] == ["approved"]

    pincex("admin", "kyc", "erase", f"account:{account}", "--reason", "asked for by letter", "--yes")
    shown = pincex("admin", "kyc", "show", case_id)
    assert (shown["data"], shown["case"]["erased"], shown["case"]["decided_by"]) == (None, True, "ops-local")
    records = call(f"{exchange_stack.ops_url}/admin/audit/records?page_size=200").text
    assert "KycAdminService/GetCase" in records
    for text in (records, exchange_stack.folder.log("wallet-1")):
        assert NAME not in text
        assert CITY not in text


def test_bad_data_is_refused_by_field_over_rest(exchange_stack: ExchangeStack, account: str) -> None:
    url = f"{exchange_stack.edge_url}/api/v1/kyc/submissions"
    body = {"tier": 2, "request_id": "r1", "data": PERSON}
    answer = call(
        url,
        method="POST",
        body=json.dumps(body),
        headers={"x-pincex-account": account, "content-type": "application/json"},
    )
    assert answer.status == 400
    assert answer.json()["details"][0]["metadata"] == {"field": "data.document_number"}
    assert NAME not in answer.text
    assert len(call(f"{exchange_stack.edge_url}/api/v1/kyc/tiers").json()["tiers"]) == 3
