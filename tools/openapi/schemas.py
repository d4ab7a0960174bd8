"""Types of the contract as JSON Schema, by the rules of proto JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from entrypoints.rest.proto_json import is_map
from tools.openapi.contract import PACKAGE
from tools.openapi.limits import limits_of

Schema = dict[str, Any]
Kind = FieldDescriptor
BYTES = {"type": "string", "contentEncoding": "base64"}
SCALARS: Mapping[int, Schema] = {
    Kind.CPPTYPE_BOOL: {"type": "boolean"},
    Kind.CPPTYPE_STRING: {"type": "string"},
    Kind.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    Kind.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    Kind.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    Kind.CPPTYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0},
    Kind.CPPTYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"},
    Kind.CPPTYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"},
}
WELL_KNOWN: Mapping[str, Schema] = {
    "Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "Empty": {"type": "object"},
    "FieldMask": {"type": "string", "description": "Names of fields with commas between them."},
    "ListValue": {"type": "array"},
    "Struct": {"type": "object"},
    "Timestamp": {"type": "string", "format": "date-time"},
    "Value": {},
    "BoolValue": SCALARS[Kind.CPPTYPE_BOOL],
    "BytesValue": BYTES,
    "DoubleValue": SCALARS[Kind.CPPTYPE_DOUBLE],
    "FloatValue": SCALARS[Kind.CPPTYPE_FLOAT],
    "Int32Value": SCALARS[Kind.CPPTYPE_INT32],
    "Int64Value": SCALARS[Kind.CPPTYPE_INT64],
    "StringValue": SCALARS[Kind.CPPTYPE_STRING],
    "UInt32Value": SCALARS[Kind.CPPTYPE_UINT32],
    "UInt64Value": SCALARS[Kind.CPPTYPE_UINT64],
}
REQUIRED = "Required"
"""The word by which a comment says that a field may not be left out."""


class Schemas:
    """Writes types, and gathers in `components` those that others refer to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments

    def answered(self, message: Descriptor) -> Schema:
        """Returns the reference to a message as the server writes it: what has no presence is always there."""
        always = [field.json_name for field in message.fields if not field.has_presence]
        return self._reference(message, lambda: self._object(message, message.fields, always, taken=False))

    def taken(self, message: Descriptor) -> Schema:
        """Returns the reference to a message as the server takes it."""
        return self._reference(message, lambda: self.body(message, ()))

    def body(self, message: Descriptor, elsewhere: Iterable[str]) -> Schema:
        """Returns a message as a body without the fields that come from elsewhere."""
        fields = [field for field in message.fields if field.name not in elsewhere]
        needed = [field.json_name for field in fields if self.needs(field)]
        return self._object(message, fields, needed, taken=True) | {"additionalProperties": False}

    def field(self, field: FieldDescriptor, *, taken: bool) -> Schema:
        """Returns what stands at a field, with its comment and its limits."""
        schema = self._container(field, taken=taken) | limits_of(field, self.said(field))
        if taken and not self.needs(field):
            schema = _or_null(schema)
        return _described(schema, self.said(field))

    def parameter(self, field: FieldDescriptor) -> Schema:
        """Returns what a field takes in a path or a query."""
        return self._container(field, taken=True) | limits_of(field, self.said(field))

    def said(self, thing: Any) -> str:
        """Returns the comment on anything with a full name."""
        return self._comments.get(thing.full_name, "")

    def needs(self, field: FieldDescriptor) -> bool:
        """Says whether a request is refused without the field."""
        return REQUIRED in self.said(field)

    def enum(self, enum: EnumDescriptor) -> Schema:
        """Returns the reference to an enum, of which the names are written."""
        lines = [
            f"- `{value.name}`: {self._comments.get(f'{enum.full_name}.{value.name}', '')}" for value in enum.values
        ]
        text = "\n\n".join([self.said(enum), "\n".join(lines)])
        names = [value.name for value in enum.values]
        return self._reference(enum, lambda: {"type": "string", "enum": names, "description": text})

    def _container(self, field: FieldDescriptor, *, taken: bool) -> Schema:
        if field.message_type is not None and is_map(field):
            value = field.message_type.fields_by_name["value"]
            return {"type": "object", "additionalProperties": self._single(value, taken=taken)}
        single = self._single(field, taken=taken)
        return {"type": "array", "items": single} if field.is_repeated else single

    def _single(self, field: FieldDescriptor, *, taken: bool) -> Schema:
        if field.enum_type is not None:
            return self.enum(field.enum_type)
        if field.message_type is None:
            return dict(BYTES if field.type == Kind.TYPE_BYTES else SCALARS[field.cpp_type])
        package, _, name = field.message_type.full_name.rpartition(".")
        if package == "google.protobuf":
            return dict(WELL_KNOWN[name])
        return self.taken(field.message_type) if taken else self.answered(field.message_type)

    def _object(
        self, message: Descriptor, fields: Iterable[FieldDescriptor], needed: list[str], *, taken: bool
    ) -> Schema:
        properties = {field.json_name: self.field(field, taken=taken) for field in fields}
        schema: Schema = {"type": "object", "properties": properties}
        if needed:
            schema["required"] = needed
        choices = [_at_most_one(oneof) for oneof in message.oneofs if len(oneof.fields) > 1]
        return _described(schema | ({"allOf": choices} if choices else {}), self.said(message))

    def _reference(self, kind: Descriptor | EnumDescriptor, make: Any) -> Schema:
        name = kind.full_name.removeprefix(f"{PACKAGE}.")
        if name not in self.components:
            self.components[name] = {}  # a message may hold itself
            self.components[name] = make()
        return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    """Lets null stand for what is left out."""
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def _described(schema: Schema, text: str) -> Schema:
    """Puts the comment first; what a well-known type says of itself gives way."""
    return {"description": text or schema.get("description", "")} | {
        key: value for key, value in schema.items() if key != "description"
    }


def _at_most_one(oneof: OneofDescriptor) -> Schema:
    cases = [{"required": [field.json_name]} for field in oneof.fields]
    return {"oneOf": [*cases, {"not": {"anyOf": cases}}]}
