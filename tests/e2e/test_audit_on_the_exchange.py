"""The audit trail of a whole exchange in production: asked for and proved over the ops listener."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.edge_http import call

if TYPE_CHECKING:
    from tests.stack_fixture import ProductionStack

RECORDS, PROOF = "/admin/audit/records", "/admin/audit/verify"


def test_the_trail_is_proved_and_the_heads_that_audit_log_holds_stand_in_it(production_stack: ProductionStack) -> None:
    exchange, headers = production_stack.exchange, production_stack.bearer()
    # Refused by the service, and so a record of two lines.
    unknown = call(f"{exchange.ops_url}/admin/accounts/999999999/unlock", "POST", '{"reason": "nobody"}', headers)
    assert unknown.status == 404, unknown.text

    lines = (exchange.home / "logs" / "audit.log").read_text().splitlines()
    newest: dict[str, Any] = [line for line in map(json.loads, lines) if line["phase"] == "BEGUN"][-1]
    known = f"known_sequence={newest['sequence']}&known_hash={newest['hash']}"
    proof = call(f"{exchange.ops_url}{PROOF}?{known}", headers=headers)
    assert proof.status == 200, proof.text
    assert proof.json()["intact"]
    assert int(proof.json()["head_sequence"]) >= newest["sequence"]
    query = f"request_id={newest['request_id']}"
    records = call(f"{exchange.ops_url}{RECORDS}?{query}", headers=headers).json()["records"]
    assert [(one["phase"], one["outcome"], one["reason"]) for one in records] == [
        ("ENDED", "USER_NOT_FOUND", "nobody"),
        ("BEGUN", "", "nobody"),
    ]
    assert {one["service"] for one in records} == {"auth-service"}
    assert {one["writer_role"] for one in records} == {"auth_user"}

    told = exchange.folder.command(
        *("audit", "verify", "--known", f"{newest['sequence']}:{newest['hash']}"),
        *("--ops-target", exchange.ops_address, "--token", headers["authorization"].removeprefix("Bearer ")),
    )
    assert (told.returncode, "intact" in told.stdout) == (0, True), told.stdout + told.stderr


def test_only_the_ops_listener_shows_the_trail_and_only_to_whom_it_concerns(production_stack: ProductionStack) -> None:
    exchange = production_stack.exchange
    trader = production_stack.bearer(scopes=["READ"])
    for path in (RECORDS, PROOF):
        assert call(f"{exchange.ops_url}{path}", headers=trader).reason() == "PERMISSION_DENIED"
        assert call(f"{exchange.ops_url}{path}").reason() == "UNAUTHENTICATED"
        assert call(f"{exchange.edge_url}{path}", headers=production_stack.bearer()).status == 404
