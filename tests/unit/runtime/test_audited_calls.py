"""What of a request is recorded: all but secrets, and never more than a record may hold."""

import json
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from exchange.runtime.audited_calls import MAX_DETAILS_BYTES, details_of
from pincex.auth.v1 import auth_admin_service_pb2, auth_service_pb2, user_service_pb2
from pincex.trading.v1 import admin_service_pb2

FIELD: Final = descriptor_pb2.FieldDescriptorProto


def test_a_request_is_shown_under_its_contracts_names():
    request = auth_admin_service_pb2.UnlockAccountRequest(user_id="100001", reason="asked on the phone")
    assert json.loads(details_of(request)) == {"user_id": "100001", "reason": "asked on the phone"}


def test_marked_fields_are_left_out():
    request = user_service_pb2.ChangePasswordRequest(password="old secret", new_password="new secret")
    assert details_of(request) == "{}"
    login = auth_service_pb2.LoginRequest(email="a@example.org", password="swordfish", code="123456")
    assert json.loads(details_of(login)) == {"email": "a@example.org"}
    assert login.password == "swordfish"


def nested_type() -> type[Message]:
    """A message that has one with a secret inside: alone, in a list and in a map."""
    file = descriptor_pb2.FileDescriptorProto(name="nested.proto", package="nested", syntax="proto3")
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="name", number=1, type=FIELD.TYPE_STRING)
    inner.field.add(name="pin", number=2, type=FIELD.TYPE_STRING).options.debug_redact = True
    outer = file.message_type.add(name="Outer")
    entry = outer.nested_type.add(name="ByNameEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING)
    entry.field.add(name="value", number=2, type=FIELD.TYPE_MESSAGE, type_name=".nested.Inner")
    outer.field.add(name="one", number=1, type=FIELD.TYPE_MESSAGE, type_name=".nested.Inner")
    for number, (name, kind) in enumerate((("many", ".nested.Inner"), ("by_name", ".nested.Outer.ByNameEntry")), 2):
        outer.field.add(name=name, number=number, type=FIELD.TYPE_MESSAGE, type_name=kind, label=FIELD.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nested.Outer"))


def test_marked_fields_inside_other_messages_are_left_out():
    request: Any = nested_type()()
    for inner in (request.one, request.many.add(), request.by_name["a"]):
        inner.name, inner.pin = "shown", "4711"
    shown = details_of(request)
    assert "4711" not in shown
    assert shown.count("shown") == 3
    assert request.one.pin == "4711"


def test_a_large_request_is_cut_and_still_json():
    request = admin_service_pb2.MassCancelRequest(account='"' * 20_000, reason="x")
    text = details_of(request)
    assert len(text) <= MAX_DETAILS_BYTES
    assert list(json.loads(text)) == ["cut"]
