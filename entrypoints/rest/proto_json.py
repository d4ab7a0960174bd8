"""Proto JSON in both directions, stricter than the library where it lets mistakes pass."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import msgspec
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from domain.errors import InvalidField

TYPES = {
    FieldDescriptor.CPPTYPE_INT32: "a 32-bit integer",
    FieldDescriptor.CPPTYPE_INT64: "a 64-bit integer",
    FieldDescriptor.CPPTYPE_UINT32: "an unsigned 32-bit integer",
    FieldDescriptor.CPPTYPE_UINT64: "an unsigned 64-bit integer",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_ENUM: "one of its enum's names",
    FieldDescriptor.CPPTYPE_STRING: "a string",
}


def to_json(message: Message, field: str = "") -> bytes:
    """Returns a message, or one field of it, as compact JSON; what has no presence is there also when it is empty."""
    plain = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return msgspec.json.encode(plain.get(message.DESCRIPTOR.fields_by_name[field].json_name) if field else plain)


def decoded(body: bytes) -> Any:
    """Returns what the JSON text says. Raises InvalidField."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidField("body", "is not valid JSON") from None
    except RecursionError:
        raise InvalidField("body", "is nested too deeply") from None


def fill(message: Message, value: Any) -> None:
    """Sets the fields that a JSON object names, in either spelling. Raises InvalidField, which names the wrong one."""
    try:
        _check(descriptor_of(message), value, "")
        json_format.ParseDict(value, message)
    except json_format.ParseError:
        raise _complaint(descriptor_of(message), value, "") from None
    except RecursionError:
        raise InvalidField("body", "is nested too deeply") from None


def descriptor_of(message: Message) -> Descriptor:
    """Returns the message's type, whichever way the library has it."""
    return cast(Descriptor, message.DESCRIPTOR)


@lru_cache(maxsize=256)
def fields_of(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Returns the fields by both of their names: `page_size` and `pageSize`."""
    return {name: field for field in descriptor.fields for name in (field.json_name, field.name)}


def message_in(field: FieldDescriptor) -> Descriptor | None:
    """Returns the field's type if that is a message written as an object of its fields; None for all others.

    Maps, timestamps and the like have JSON of their own.
    """
    kind = field.message_type
    if kind is None or is_map(field) or kind.full_name.startswith("google.protobuf."):
        return None
    return kind


def is_map(field: FieldDescriptor) -> bool:
    """Says whether the field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _check(descriptor: Descriptor, value: Any, place: str) -> None:
    """Refuses unknown names, and what is no object where one is due: the library takes [] and "" for empty ones."""
    if not isinstance(value, dict):
        raise InvalidField(place.rstrip(".") or "body", "is not a JSON object")
    fields = fields_of(descriptor)
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            raise InvalidField(place + name[:100], "is not a field of this request")
        if item is not None and (inner := message_in(field)):
            for each in item if field.is_repeated and isinstance(item, list) else (item,):
                _check(inner, each, f"{place}{name}.")


def _complaint(descriptor: Descriptor, value: Any, place: str) -> InvalidField:
    """Finds the first field that does not parse by itself; where each does, two spellings name the same one."""
    for name, item in value.items():
        field = fields_of(descriptor)[name]
        try:
            json_format.ParseDict({name: item}, GetMessageClass(descriptor)())
        except json_format.ParseError:
            inner = message_in(field)
            if inner and isinstance(item, dict):
                return _complaint(inner, item, f"{place}{name}.")
            return InvalidField(place + name, f"is not {_wanted(field)}")
    return InvalidField(place.rstrip(".") or "body", "names a field twice")


def _wanted(field: FieldDescriptor) -> str:
    if is_map(field):
        return "an object of the right keys and values"
    wanted = TYPES.get(field.cpp_type) or f"a valid {field.message_type.name if field.message_type else 'value'}"
    return f"a list, or an element is not {wanted}" if field.is_repeated else wanted
