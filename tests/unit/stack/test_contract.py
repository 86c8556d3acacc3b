"""What each listener may carry is read from the contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from exchange.stack.config import default_image
from exchange.stack.edge.contract import Contract, ContractError, read_contract
from pincex.common.v1 import access_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


# What the tests' methods say of who may call them.
PUBLIC, INTERNAL = access_pb2.Access(public=True), access_pb2.Access(internal=True)
SCOPED, STAFF = access_pb2.Access(scope=access_pb2.Access.TRADE), access_pb2.Access(roles=[access_pb2.OPERATOR])


def image(tmp_path: Path, package: str, methods: Mapping[str, tuple[access_pb2.Access | None, str]]) -> Path:
    """Writes an image with one service; `methods` is {name: (who may call it, its GET path or "")}."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="a.proto", package=package, syntax="proto3")
    file.message_type.add(name="X")
    service = file.service.add(name="S")
    for method_name, (access, path) in methods.items():
        method = service.method.add(name=method_name, input_type=f".{package}.X", output_type=f".{package}.X")
        if access is not None:
            method.options.Extensions[access_pb2.access].CopyFrom(access)
        if path:
            method.options.Extensions[annotations_pb2.http].get = path
    target_file = tmp_path / "image.binpb"
    target_file.write_bytes(files.SerializeToString())
    return target_file


def carried(contract: Contract, *, public: bool) -> set[str]:
    return {method.grpc_path for method in contract.carried(public=public)}


def test_what_asks_for_roles_is_for_operators_and_what_is_internal_for_no_listener(tmp_path: Path) -> None:
    methods = {"Time": (PUBLIC, ""), "Place": (SCOPED, ""), "Halt": (STAFF, "/admin/halt"), "Link": (INTERNAL, "")}
    contract = read_contract(image(tmp_path, "pincex.x.v1", methods))

    assert carried(contract, public=True) == {"/pincex.x.v1.S/Time", "/pincex.x.v1.S/Place"}
    assert carried(contract, public=False) == {"/pincex.x.v1.S/Time", "/pincex.x.v1.S/Place", "/pincex.x.v1.S/Halt"}
    halt = contract.method_at("/admin/halt")
    assert halt is not None
    assert (halt.name, halt.access.roles) == ("Halt", frozenset({"operator"}))
    assert contract.method_at("/nowhere") is None


def test_a_method_that_leaves_open_who_may_call_it_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"pincex\.x\.v1\.S\.Open"):
        read_contract(image(tmp_path, "pincex.x.v1", {"Time": (PUBLIC, ""), "Open": (None, "")}))


def test_guessing_is_tried_where_anybody_may_call_and_something_comes_of_it() -> None:
    contract = read_contract(default_image())

    guessed = {method.name for method in contract.methods if method.takes_credentials}
    assert {"Login", "Register", "RefreshTokens", "ResetPassword", "VerifyEmail"} <= guessed
    assert not {"GetHealth", "GetOrderBook", "GetKeySet", "PlaceOrder"} & guessed


def test_the_options_say_of_every_method_what_lists_of_services_and_paths_said_before() -> None:
    """Until methods had the option, the edge went by names: these services, and every path below `/admin`."""
    packages, younger = ("pincex.trading.v1", "pincex.journal.v1"), "pincex.trading.v1.FundsService"
    methods = read_contract(default_image()).methods
    existing = [method for method in methods if method.package in packages and method.service != younger]
    assert {"PlaceOrder", "HaltMarket", "Link"} <= {method.name for method in existing}
    for method in existing:
        listed = method.service in {"pincex.trading.v1.TradingAdminService", "pincex.journal.v1.EventService"}
        on_admin_path = any(path.startswith("/admin") for _, path in method.http)
        assert method.ops_only is (listed or on_admin_path), method.grpc_path
        assert method.access.internal is (method.service == "pincex.journal.v1.ReplicaService"), method.grpc_path


def test_packages_of_others_are_not_carried_at_all(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no service of ours"):
        read_contract(image(tmp_path, "google.longrunning", {"Get": (PUBLIC, "")}))


def test_an_image_that_is_absent_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="does not exist: run `make proto`"):
        read_contract(tmp_path / "none.binpb")
    (tmp_path / "broken.binpb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ContractError, match="cannot be read"):
        read_contract(tmp_path / "broken.binpb")
