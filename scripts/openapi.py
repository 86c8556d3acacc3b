"""Describe the REST side of the contracts as OpenAPI 3.1.

    python -m scripts.openapi IMAGE      (a `buf build` image with source info) prints the document

Names and forms are those of Envoy's transcoder, which serves these paths: proto field names, names of
enum values, 64-bit integers as strings, a stream as newline-delimited JSON. Comments of the contracts
become descriptions. `x-listener` says on which listener a path is served: `public` (/api/...) or `ops`
(/admin/... and the rest, loopback only); `x-grpc-method` names the RPC behind it.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2

Schema = dict[str, Any]
Field = descriptor_pb2.FieldDescriptorProto
Message = descriptor_pb2.DescriptorProto

VERBS: Final = ("get", "put", "post", "delete", "patch")

_STATUS: Final = ".google.rpc.Status"
_HTTP_BODY: Final = ".google.api.HttpBody"
_INT64: Final[Schema] = {"type": "string", "format": "int64"}
_UINT64: Final[Schema] = {"type": "string", "format": "uint64"}
_INT32: Final[Schema] = {"type": "integer", "format": "int32"}
_UINT32: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1}
_SCALARS: Final[Mapping[int, Schema]] = {
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    Field.TYPE_INT64: _INT64,
    Field.TYPE_SINT64: _INT64,
    Field.TYPE_SFIXED64: _INT64,
    Field.TYPE_UINT64: _UINT64,
    Field.TYPE_FIXED64: _UINT64,
    Field.TYPE_INT32: _INT32,
    Field.TYPE_SINT32: _INT32,
    Field.TYPE_SFIXED32: _INT32,
    Field.TYPE_UINT32: _UINT32,
    Field.TYPE_FIXED32: _UINT32,
}
# Messages whose JSON form is not an object of their fields.
_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    ".google.protobuf.FieldMask": {"type": "string"},
    ".google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.Value": {},
    ".google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}
_INFO: Final[Schema] = {
    "title": "PinCEX",
    "version": "v1",
    "description": (
        "The REST form of the PinCEX contracts, served by Envoy from the same definitions as gRPC. Money is "
        "a decimal string. An error is a google.rpc.Status with a google.rpc.ErrorInfo whose reason is one "
        "of pincex.common.v1."
    ),
}


class Catalogue:
    """Messages, enums and comments of an image, by full name with a leading dot."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        """Index every file of the image."""
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, descriptor_pb2.EnumDescriptorProto] = {}
        self._comments: dict[tuple[str, tuple[int, ...]], str] = {}
        self._places: dict[str, tuple[str, tuple[int, ...]]] = {}
        for file in files.file:
            for location in file.source_code_info.location:
                comment = _tidy(location.leading_comments or location.trailing_comments)
                if comment:
                    self._comments[file.name, tuple(location.path)] = comment
            prefix = f".{file.package}" if file.package else ""
            for index, enum in enumerate(file.enum_type):
                self._add_enum(f"{prefix}.{enum.name}", enum, file.name, (5, index))
            for index, message in enumerate(file.message_type):
                self._add_message(f"{prefix}.{message.name}", message, file.name, (4, index))

    def comment(self, name: str, *suffix: int) -> str:
        """Return the comment of a message or enum, or of its part at the descriptor path `suffix`."""
        file, path = self._places[name]
        return self.comment_at(file, (*path, *suffix))

    def comment_at(self, file: str, path: tuple[int, ...]) -> str:
        """Return the comment at a descriptor path of a file, empty where there is none."""
        return self._comments.get((file, path), "")

    def is_map(self, field: Field) -> bool:
        """Return whether a field is a `map<K, V>`, which descriptors show as repeated entries."""
        return field.type == Field.TYPE_MESSAGE and self.messages[field.type_name].options.map_entry

    def _add_message(self, name: str, message: Message, file: str, path: tuple[int, ...]) -> None:
        self.messages[name] = message
        self._places[name] = (file, path)
        for index, enum in enumerate(message.enum_type):
            self._add_enum(f"{name}.{enum.name}", enum, file, (*path, 4, index))
        for index, nested in enumerate(message.nested_type):
            self._add_message(f"{name}.{nested.name}", nested, file, (*path, 3, index))

    def _add_enum(self, name: str, enum: descriptor_pb2.EnumDescriptorProto, file: str, path: tuple[int, ...]) -> None:
        self.enums[name] = enum
        self._places[name] = (file, path)


class Schemas:
    """JSON schemas of the messages that operations use, made on first reference."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Start with no schema."""
        self._catalogue = catalogue
        self._components: dict[str, Schema] = {}

    def components(self) -> dict[str, Schema]:
        """Return the schemas so far, sorted by name."""
        return dict(sorted(self._components.items()))

    def message(self, name: str) -> Schema:
        """Return the schema of a message: a reference, or the special form of a well-known type."""
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        key = name.removeprefix(".")
        if key not in self._components:
            self._components[key] = {}  # first, so that a recursive message finds itself
            self._components[key] = self._object(name)
        return {"$ref": f"#/components/schemas/{key}"}

    def field(self, field: Field, description: str = "") -> Schema:
        """Return the schema of a field of any cardinality."""
        schema: Schema
        if self._catalogue.is_map(field):
            value = self._catalogue.messages[field.type_name].field[1]
            schema = {"type": "object", "additionalProperties": self._single(value)}
        elif field.label == Field.LABEL_REPEATED:
            schema = {"type": "array", "items": self._single(field)}
        else:
            schema = self._single(field)
        if description:
            schema["description"] = description
        if field.options.deprecated:
            schema["deprecated"] = True
        if field_behavior_pb2.OUTPUT_ONLY in _behaviours(field):
            schema["readOnly"] = True
        return schema

    def _single(self, field: Field) -> Schema:
        if field.type == Field.TYPE_MESSAGE:
            return self.message(field.type_name)
        if field.type == Field.TYPE_ENUM:
            return self._enum(field.type_name)
        return dict(_SCALARS[field.type])

    def _object(self, name: str) -> Schema:
        message = self._catalogue.messages[name]
        properties = {
            field.name: self.field(field, self._catalogue.comment(name, 2, index))
            for index, field in enumerate(message.field)
        }
        schema: Schema = {"type": "object", "properties": properties}
        if comment := self._catalogue.comment(name):
            schema["description"] = comment
        if required := [f.name for f in message.field if field_behavior_pb2.REQUIRED in _behaviours(f)]:
            schema["required"] = required
        if choices := _choices(message):
            schema["x-oneof"] = choices
        return schema

    def _enum(self, name: str) -> Schema:
        key = name.removeprefix(".")
        if key not in self._components:
            enum = self._catalogue.enums[name]
            lines = [self._catalogue.comment(name)]
            for index, value in enumerate(enum.value):
                if text := self._catalogue.comment(name, 2, index):
                    lines.append(f"- `{value.name}`: {text}")
            self._components[key] = {
                "type": "string",
                "enum": [value.name for value in enum.value],
                "description": "\n".join(line for line in lines if line),
            }
        return {"$ref": f"#/components/schemas/{key}"}


class Document:
    """Builds the paths of the document, one binding of `google.api.http` after the other."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        """Read every service of the image."""
        self._catalogue = Catalogue(files)
        self._schemas = Schemas(self._catalogue)
        self._paths: dict[str, Schema] = {}
        self._tags: list[Schema] = []
        for file in files.file:
            for index, service in enumerate(file.service):
                self._add_service(file, index, service)

    def build(self) -> Schema:
        """Return the whole document."""
        self._schemas.message(_STATUS)
        return {
            "openapi": "3.1.0",
            "info": _INFO,
            "tags": sorted(self._tags, key=lambda tag: str(tag["name"])),
            "paths": dict(sorted(self._paths.items())),
            "components": {"schemas": self._schemas.components()},
        }

    def _add_service(
        self,
        file: descriptor_pb2.FileDescriptorProto,
        index: int,
        service: descriptor_pb2.ServiceDescriptorProto,
    ) -> None:
        tag = f"{file.package}.{service.name}"
        before = len(self._paths)
        for position, method in enumerate(service.method):
            if not method.options.HasExtension(annotations_pb2.http):
                continue
            rule = method.options.Extensions[annotations_pb2.http]
            comment = self._catalogue.comment_at(file.name, (6, index, 2, position))
            for number, binding in enumerate([rule, *rule.additional_bindings]):
                operation_id = f"{service.name}_{method.name}" + (f"_{number}" if number else "")
                self._add_binding(tag, operation_id, method, binding, comment)
        if len(self._paths) > before:
            self._tags.append({"name": tag, "description": self._catalogue.comment_at(file.name, (6, index))})

    def _add_binding(
        self,
        tag: str,
        operation_id: str,
        method: descriptor_pb2.MethodDescriptorProto,
        binding: http_pb2.HttpRule,
        comment: str,
    ) -> None:
        verb, template = _verb_and_template(binding)
        path = re.sub(r"\{([^}=]+)=[^}]*\}", r"{\1}", template)
        grpc_method = f"/{tag}/{method.name}"
        operation: Schema = {"operationId": operation_id, "tags": [tag]}
        if comment:
            operation["summary"] = re.split(r"(?<=\.)\s", comment, maxsplit=1)[0]
            operation["description"] = comment
        operation["x-grpc-method"] = grpc_method
        operation["x-listener"] = "public" if path.startswith("/api/") else "ops"
        if method.options.deprecated:
            operation["deprecated"] = True
        operation |= self._request(method.input_type, binding, path)
        operation["responses"] = self._responses(method)
        item = self._paths.setdefault(path, {})
        # {symbol=*/*} beside {symbol} is one path here; two methods on one path are a defect.
        known = item.setdefault(verb, operation)
        if known["x-grpc-method"] != grpc_method:
            raise ValueError(f"{verb} {path} is bound to {known['x-grpc-method']} and to {grpc_method}")

    def _request(self, input_type: str, binding: http_pb2.HttpRule, path: str) -> Schema:
        message = self._catalogue.messages[input_type]
        in_path = re.findall(r"\{([^}]+)\}", path)
        parameters = [
            {"name": name, "in": "path", "required": True, **self._parameter(input_type, name)} for name in in_path
        ]
        request: Schema = {}
        if binding.body == "*":
            request["requestBody"] = _json_body(self._schemas.message(input_type))
        else:
            taken = set(in_path)
            if binding.body:
                taken.add(binding.body)
                field = next(field for field in message.field if field.name == binding.body)
                request["requestBody"] = _json_body(self._schemas.field(field))
            parameters += [
                {"name": name, "in": "query", **self._parameter(input_type, name)}
                for name in self._query_names(message, taken)
            ]
        if parameters:
            request["parameters"] = parameters
        return request

    def _parameter(self, message_name: str, dotted: str) -> Schema:
        """Return schema and description of the field that a dotted name leads to."""
        head, _, rest = dotted.partition(".")
        message = self._catalogue.messages[message_name]
        index, field = next((i, f) for i, f in enumerate(message.field) if f.name == head)
        if rest:
            return self._parameter(field.type_name, rest)
        parameter: Schema = {"schema": self._schemas.field(field)}
        if comment := self._catalogue.comment(message_name, 2, index):
            parameter["description"] = comment
        return parameter

    def _query_names(
        self, message: Message, taken: set[str], prefix: str = "", above: frozenset[str] = frozenset()
    ) -> Iterator[str]:
        """Yield the names a query string can set: fields, and fields of single messages, dotted."""
        for field in message.field:
            name = prefix + field.name
            if name in taken or field.type_name in above:
                continue
            if field.type != Field.TYPE_MESSAGE or field.type_name in _WELL_KNOWN:
                yield name
            elif field.label != Field.LABEL_REPEATED:
                inner = self._catalogue.messages[field.type_name]
                yield from self._query_names(inner, taken, f"{name}.", above | {field.type_name})

    def _responses(self, method: descriptor_pb2.MethodDescriptorProto) -> Schema:
        content: Schema
        if method.output_type == _HTTP_BODY:
            content = {"*/*": {"schema": {"type": "string"}}}
        else:
            kind = "application/x-ndjson" if method.server_streaming else "application/json"
            content = {kind: {"schema": self._schemas.message(method.output_type)}}
        error = {"application/json": {"schema": self._schemas.message(_STATUS)}}
        return {
            "200": {"description": "The answer.", "content": content},
            "default": {"description": "The error.", "content": error},
        }


def render(image: bytes) -> str:
    """Return the document of an image (a descriptor set with source info) as JSON text.

    Raises ValueError where two methods claim the same verb and path.
    """
    document = Document(descriptor_pb2.FileDescriptorSet.FromString(image)).build()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def operations(document: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return the gRPC method behind each (verb, path) of a document that `render` made."""
    return {
        (verb, path): item[verb]["x-grpc-method"]
        for path, item in document["paths"].items()
        for verb in VERBS
        if verb in item
    }


def _tidy(comment: str) -> str:
    """Drop the blank that follows `//` on each line, and the linter's directives."""
    lines = (line.removeprefix(" ").rstrip() for line in comment.splitlines())
    return "\n".join(line for line in lines if not line.startswith("buf:lint:")).strip()


def _behaviours(field: Field) -> list[int]:
    return list(field.options.Extensions[field_behavior_pb2.field_behavior])


def _choices(message: Message) -> dict[str, list[str]]:
    """Return the real oneofs of a message: those that proto3 makes for `optional` are left out."""
    found: dict[str, list[str]] = {}
    for field in message.field:
        if field.HasField("oneof_index") and not field.proto3_optional:
            found.setdefault(message.oneof_decl[field.oneof_index].name, []).append(field.name)
    return found


def _verb_and_template(binding: http_pb2.HttpRule) -> tuple[str, str]:
    pattern = binding.WhichOneof("pattern")
    if pattern not in VERBS:
        raise ValueError(f"a binding needs one of {', '.join(VERBS)}, found {pattern}")
    return pattern, getattr(binding, pattern)


def _json_body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


if __name__ == "__main__":
    sys.stdout.write(render(Path(sys.argv[1]).read_bytes()))
