"""Who may call a method, as its contract says it."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from exchange.runtime import access, principal
from exchange.runtime.access import AccessError, MethodPolicy, policies_of, policy_of
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import ANONYMOUS, Principal
from pincex.common.v1 import access_pb2
from pincex.journal.v1 import replica_service_pb2  # noqa: F401 - registers its service
from pincex.trading.v1 import (
    account_service_pb2,  # noqa: F401 - registers its service
    order_service_pb2,  # noqa: F401 - registers its service
)

Access = access_pb2.Access


def method(option: Access | None, *, streaming: bool = False) -> MethodDescriptor:
    """A method of a contract of its own that says this of its callers."""
    file = descriptor_pb2.FileDescriptorProto(name="trial.proto", package="trial", syntax="proto3")
    file.dependency.append("pincex/common/v1/access.proto")
    file.message_type.add(name="Empty")
    declared = file.service.add(name="Trial").method.add(
        name="Try", input_type=".trial.Empty", output_type=".trial.Empty", server_streaming=streaming
    )
    if option is not None:
        declared.options.Extensions[access_pb2.access].CopyFrom(option)
    pool = descriptor_pool.DescriptorPool()
    for needed in ("google/protobuf/descriptor.proto", "pincex/common/v1/access.proto"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(needed).serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("trial.Trial").methods[0]


def test_a_policy_is_what_the_contract_says():
    assert policies_of("pincex.trading.v1.OrderService")["PlaceOrder"] == MethodPolicy(scope="trade")
    assert policies_of("pincex.journal.v1.ReplicaService") == {"Link": MethodPolicy(internal=True)}
    credit = policies_of("pincex.trading.v1.AccountService")["CreditAccount"]
    assert credit == MethodPolicy(roles=frozenset({"operator"}), audited=True)


def test_the_names_of_scopes_and_roles_are_those_of_the_contract():
    assert access.SCOPES == principal.ALL_SCOPES
    assert access.ROLES == principal.ALL_ROLES


def test_what_makes_sense_is_taken():
    assert policy_of(method(Access(public=True))) == MethodPolicy(public=True)
    assert policy_of(method(Access(scope=Access.MANAGE, audited=True))) == MethodPolicy(scope="manage", audited=True)
    assert policy_of(method(Access(roles=[access_pb2.AUDITOR]), streaming=True)).roles == {"auditor"}


@pytest.mark.parametrize(
    ("option", "streaming", "complaint"),
    [
        (None, False, "has no option"),
        (Access(), False, "exactly one"),
        (Access(audited=True), False, "exactly one"),
        (Access(public=True, scope=Access.READ), False, "exactly one"),
        (Access(public=True, internal=True), False, "exactly one"),
        (Access(scope=Access.READ, roles=[access_pb2.OPERATOR]), False, "exactly one"),
        (Access(public=True, audited=True), False, "audited"),
        (Access(internal=True, audited=True), False, "audited"),
        (Access(roles=[access_pb2.OPERATOR], audited=True), True, "audited"),
        (Access(scope=Access.ADMIN), False, "scope ADMIN"),
        (Access(roles=[access_pb2.ROLE_UNSPECIFIED]), False, "ROLE_UNSPECIFIED"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(option, streaming, complaint):
    with pytest.raises(AccessError, match=rf"trial\.Trial\.Try.*{complaint}"):
        policy_of(method(option, streaming=streaming))


def test_a_scope_of_a_later_contract_is_refused_not_waved_through():
    option = Access.FromString(b"\x18\x63")
    assert option.scope == 99
    with pytest.raises(AccessError, match=r"trial\.Trial\.Try"):
        policy_of(method(option))


@pytest.mark.parametrize(
    ("policy", "roles", "scopes", "refusal"),
    [
        (MethodPolicy(scope="trade"), (), ("read", "trade"), None),
        (MethodPolicy(scope="trade"), ("admin", "operator"), ("read",), ErrorReason.SCOPE_MISSING),
        (MethodPolicy(roles=frozenset({"support", "operator"})), ("operator",), (), None),
        (MethodPolicy(roles=frozenset({"support"})), ("operator",), ("admin",), ErrorReason.PERMISSION_DENIED),
        (MethodPolicy(roles=frozenset({"auditor"})), ("admin",), (), None),
        (MethodPolicy(roles=frozenset({"operator"})), (), ("admin",), ErrorReason.PERMISSION_DENIED),
    ],
)
def test_scopes_and_roles_decide(policy, roles, scopes, refusal):
    caller = Principal("a", frozenset(roles), "token", frozenset(scopes))
    if refusal is None:
        policy.check(caller)
        return
    with pytest.raises(ServiceError) as caught:
        policy.check(caller)
    assert caught.value.reason == refusal


def test_the_anonymous_principal_suffices_for_nothing():
    for policy in (MethodPolicy(scope="read"), MethodPolicy(roles=access.ROLES)):
        with pytest.raises(ServiceError):
            policy.check(ANONYMOUS)
