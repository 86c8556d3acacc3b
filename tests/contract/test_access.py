"""Every method of every contract says who may call it, and what it says fits how it is reached."""

import importlib
import pkgutil

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

import pincex
from exchange.runtime.access import MethodPolicy, policy_of


def contract_methods() -> list[MethodDescriptor]:
    modules = [found.name for found in pkgutil.walk_packages(pincex.__path__, "pincex.") if found.name.endswith("_pb2")]
    services = [
        service for name in modules for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values()
    ]
    return [method for service in services for method in service.methods]


METHODS = contract_methods()


def rest_paths(method: MethodDescriptor) -> list[str]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return []
    first = options.Extensions[annotations_pb2.http]
    rules = [first, *first.additional_bindings]
    return [getattr(rule, str(rule.WhichOneof("pattern"))) for rule in rules]


def nonsense(policy: MethodPolicy, paths: list[str]) -> str:
    """Why a method cannot be reached so by such callers, nothing where it can."""
    if policy.internal and paths:
        return "no listener carries an internal method"
    if policy.roles and any(not path.startswith(("/admin/", "/metrics")) for path in paths):
        return "roles count on the ops listener, whose paths begin with /admin"
    if policy.scope and any(path.startswith("/admin/") for path in paths):
        return "on the ops listener nobody acts on an account of its own"
    return ""


def test_there_are_methods_to_look_at() -> None:
    assert len(METHODS) > 80


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    assert nonsense(policy_of(method), rest_paths(method)) == ""


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        (MethodPolicy(roles=frozenset({"operator"})), "/api/v1/orders"),
        (MethodPolicy(internal=True), "/admin/link"),
        (MethodPolicy(scope="read"), "/admin/accounts"),
    ],
)
def test_a_path_that_its_callers_cannot_use_is_found(policy: MethodPolicy, path: str) -> None:
    assert nonsense(policy, [path])
