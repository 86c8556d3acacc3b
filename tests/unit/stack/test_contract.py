"""What each listener may carry is read from the contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from exchange.stack.edge.contract import Contract, ContractError, read_contract

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def image(tmp_path: Path, package: str, services: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Path:
    """Writes an image; `services` is {service: {method: GET paths}}."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="a.proto", package=package, syntax="proto3")
    for service_name, methods in services.items():
        service = file.service.add(name=service_name)
        for method_name, paths in methods.items():
            method = service.method.add(name=method_name, input_type=".X", output_type=".Y")
            for number, path in enumerate(paths):
                rule = method.options.Extensions[annotations_pb2.http]
                target = rule if number == 0 else rule.additional_bindings.add()
                target.get = path
    target_file = tmp_path / "image.binpb"
    target_file.write_bytes(files.SerializeToString())
    return target_file


def carried(contract: Contract, *, public: bool) -> set[str]:
    return {method.grpc_path for method in contract.carried(public=public)}


def test_a_method_with_an_admin_path_is_for_operators_though_its_service_is_public(tmp_path: Path) -> None:
    services = {"AccountService": {"List": ("/api/v1/balances",), "Credit": ("/admin/credits",)}}
    contract = read_contract(image(tmp_path, "pincex.trading.v1", services))

    assert carried(contract, public=True) == {"/pincex.trading.v1.AccountService/List"}
    assert len(carried(contract, public=False)) == 2


def test_an_admin_path_among_additional_bindings_counts_too(tmp_path: Path) -> None:
    services = {"S": {"M": ("/api/v1/m", "/admin/m")}}
    contract = read_contract(image(tmp_path, "pincex.x.v1", services))

    assert carried(contract, public=True) == set()


def test_the_admin_and_event_services_are_for_operators_whatever_their_paths(tmp_path: Path) -> None:
    services = {"TradingAdminService": {"GetMetrics": ("/metrics",), "NoPath": ()}}
    contract = read_contract(image(tmp_path, "pincex.trading.v1", services))

    assert carried(contract, public=True) == set()
    method = contract.method_at("/metrics")
    assert method is not None
    assert method.name == "GetMetrics"
    assert contract.method_at("/nowhere") is None


def test_packages_of_others_are_not_carried_at_all(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no service of ours"):
        read_contract(image(tmp_path, "google.longrunning", {"Operations": {"Get": ()}}))


def test_an_image_that_is_absent_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="does not exist: run `make proto`"):
        read_contract(tmp_path / "none.binpb")
    (tmp_path / "broken.binpb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ContractError, match="cannot be read"):
        read_contract(tmp_path / "broken.binpb")
