"""What of a request is recorded: all but secrets, and never more than a record may hold."""

import json

from exchange.runtime.audited_calls import MAX_DETAILS_BYTES, details_of
from pincex.auth.v1 import auth_admin_service_pb2, auth_service_pb2, user_service_pb2
from pincex.kyc.v1 import kyc_service_pb2
from pincex.trading.v1 import admin_service_pb2


def test_a_request_is_shown_under_its_contracts_names():
    request = auth_admin_service_pb2.UnlockAccountRequest(user_id="100001", reason="asked on the phone")
    assert json.loads(details_of(request)) == {"user_id": "100001", "reason": "asked on the phone"}


def test_marked_fields_are_left_out():
    request = user_service_pb2.ChangePasswordRequest(password="old secret", new_password="new secret")
    assert details_of(request) == "{}"
    login = auth_service_pb2.LoginRequest(email="a@example.org", password="swordfish", code="123456")
    assert json.loads(details_of(login)) == {"email": "a@example.org"}
    assert login.password == "swordfish"


def test_marked_fields_inside_other_messages_are_left_out():
    request = kyc_service_pb2.SubmitKycRequest(request_id="r-1")
    request.data.full_name = "Ada Lovelace"
    shown = json.loads(details_of(request))
    assert shown["request_id"] == "r-1"
    assert "Ada" not in str(shown)
    assert request.data.full_name == "Ada Lovelace"


def test_a_large_request_is_cut_and_still_json():
    request = admin_service_pb2.MassCancelRequest(account='"' * 20_000, reason="x")
    text = details_of(request)
    assert len(text) <= MAX_DETAILS_BYTES
    assert list(json.loads(text)) == ["cut"]
