"""The contracts follow their rules: lint, comments, and one method for each REST path."""

import json
from pathlib import Path

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

from scripts import openapi
from scripts.paths import OPENAPI, ToolError, run_tool
from scripts.proto import build_image, link_third_party

Method = descriptor_pb2.MethodDescriptorProto


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[descriptor_pb2.FileDescriptorProto]:
    image = tmp_path_factory.mktemp("image") / "contracts.binpb"
    build_image(image, source_info=True)
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
    ours = [file for file in descriptors.file if file.name.startswith("pincex/")]
    assert ours
    return ours


def rules_of(method: Method) -> list[http_pb2.HttpRule]:
    if not method.options.HasExtension(annotations_pb2.http):
        return []
    rule = method.options.Extensions[annotations_pb2.http]
    return [rule, *rule.additional_bindings]


def test_buf_lint_passes() -> None:
    link_third_party()
    run_tool(["buf", "lint"])


def test_buf_lint_refuses_a_method_without_a_comment(tmp_path: Path) -> None:
    plant_workspace(tmp_path, "service S {\n  rpc Get(GetRequest) returns (GetRequest);\n}\nmessage GetRequest {}\n")
    with pytest.raises(ToolError, match="should have a non-empty comment"):
        run_tool(["buf", "lint"], cwd=tmp_path)


def plant_workspace(root: Path, body: str) -> None:
    """A repository with the rules of ours and one contract in it."""
    folder = root / "proto" / "pincex" / "trial" / "v1"
    folder.mkdir(parents=True)
    head = 'syntax = "proto3";\n\npackage pincex.trial.v1;\n\nimport "google/api/annotations.proto";\n\n'
    (folder / "trial.proto").write_text(head + body, encoding="utf-8")
    (root / "buf.yaml").write_bytes((Path(__file__).parents[2] / "buf.yaml").read_bytes())
    link_third_party(root)


def test_every_message_method_and_service_is_commented(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    silent = []
    for file in files:
        commented = {
            tuple(place.path)
            for place in file.source_code_info.location
            if place.leading_comments.strip() or place.trailing_comments.strip()
        }
        for index, service in enumerate(file.service):
            silent += [f"{file.package}.{service.name}"] if (6, index) not in commented else []
            silent += [
                f"{file.package}.{service.name}.{method.name}"
                for position, method in enumerate(service.method)
                if (6, index, 2, position) not in commented
            ]
    assert silent == []


def test_every_rest_path_leads_to_one_method(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    methods: dict[tuple[str, str], list[str]] = {}
    for file in files:
        for service in file.service:
            for method in service.method:
                for rule in rules_of(method):
                    verb = rule.WhichOneof("pattern")
                    assert verb in openapi.VERBS, f"{method.name} binds {verb}"
                    methods.setdefault((verb, getattr(rule, verb)), []).append(f"{service.name}.{method.name}")
    assert methods
    assert {path: names for path, names in methods.items() if len(names) > 1} == {}


def test_every_rest_path_is_on_a_known_listener(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    document = json.loads(OPENAPI.read_text(encoding="utf-8"))
    listeners = {
        path: operation["x-listener"]
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if verb in openapi.VERBS
    }
    assert {path for path, listener in listeners.items() if listener == "public"} == {
        path for path in listeners if path.startswith("/api/")
    }


def test_no_contract_carries_money_as_a_float(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    floats = (descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE, descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT)
    words = ("price", "quantity", "amount", "balance", "fee", "money", "notional")

    def walk(message: descriptor_pb2.DescriptorProto, name: str):
        for field in message.field:
            if field.type in floats and any(word in field.name for word in words):
                yield f"{name}.{field.name}"
        for nested in message.nested_type:
            yield from walk(nested, f"{name}.{nested.name}")

    assert [hit for file in files for message in file.message_type for hit in walk(message, message.name)] == []
