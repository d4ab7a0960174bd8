"""Proto JSON in both directions. What comes in is taken apart along the contract, so that nothing else costs much."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder, encode

from domain.errors import InvalidField

DEPTH = 100
ENTRIES = 1000
"""The most that any list or object of a request may hold: they are read before it is known who sends them."""
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
    FieldDescriptor.CPPTYPE_MESSAGE: "what its type takes",
}
Scalar = str | int | float | bool | None
_ANYTHING: Decoder[Any] = Decoder()
_OBJECT: Decoder[dict[str, Raw]] = Decoder(dict[str, Raw])
_OBJECTS: Decoder[list[Raw]] = Decoder(list[Raw])
_SCALAR: Decoder[Scalar] = Decoder(Scalar)
_SCALARS: Decoder[list[Scalar] | None] = Decoder(list[Scalar] | None)
_NUMBER: Decoder[str | float | None] = Decoder(str | float | None)
_NUMBERS: Decoder[list[str | float] | None] = Decoder(list[str | float] | None)
_MAP: Decoder[dict[str, Scalar] | None] = Decoder(dict[str, Scalar] | None)
_OPEN = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any")


def to_json(message: Message, field: str = "") -> bytes:
    """Returns a message, or one field of it, as compact JSON; what has no presence is there also when it is empty."""
    plain = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return encode(plain.get(message.DESCRIPTOR.fields_by_name[field].json_name) if field else plain)


def fill_from_json(message: Message, text: bytes) -> None:
    """Sets the fields that a JSON object names, in either spelling. Raises InvalidField, which names the wrong one."""
    fill(message, _taken_apart(descriptor_of(message), text, ""))


def fill(message: Message, value: dict[str, Any]) -> None:
    """Sets the fields that are named, each to what proto JSON has for it. Raises InvalidField for a wrong value."""
    try:
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


def _taken_apart(descriptor: Descriptor, text: bytes | Raw, place: str) -> dict[str, Any]:
    if place.count(".") >= DEPTH:
        raise InvalidField("body", "is nested too deeply")
    found = _decoded(_OBJECT, text, place.rstrip(".") or "body", "is not a JSON object")
    value: dict[str, Any] = {}
    for name, raw in found.items():
        field = fields_of(descriptor).get(name)
        if field is None or field.name in value:
            wrong = place + name[:100] or "body"
            raise InvalidField(wrong, "is there twice" if field else "is not a field of this request")
        value[field.name] = _item(field, raw, place + field.name)
    return value


def _item(field: FieldDescriptor, raw: Raw, place: str) -> Any:
    inner = message_in(field)
    if inner is None or bytes(raw) == b"null":
        item = _decoded(_decoder(field), raw, place, f"is not {_wanted(field)}")
    elif field.is_repeated:
        items = _decoded(_OBJECTS, raw, place, f"is not {_wanted(field)}")
        item = [_taken_apart(inner, each, f"{place}.") for each in items[: ENTRIES + 1]]  # one is too many already
    else:
        item = _taken_apart(inner, raw, f"{place}.")
    if isinstance(item, list | dict) and len(item) > ENTRIES:
        raise InvalidField(place, f"has more than {ENTRIES} entries")
    if isinstance(item, str) and field.message_type is not None and len(item) > ENTRIES:
        raise InvalidField(place, f"has more than {ENTRIES} characters")
    return item


def _decoder(field: FieldDescriptor) -> Decoder[Any]:
    if field.message_type is not None and field.message_type.full_name in _OPEN:
        return _ANYTHING
    if is_map(field):
        return _MAP
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _NUMBERS if field.is_repeated else _NUMBER  # json_format takes true for 1.0
    return _SCALARS if field.is_repeated else _SCALAR


def _decoded(decoder: Decoder[Any], text: bytes | Raw, place: str, complaint: str) -> Any:
    try:
        return decoder.decode(text)
    except ValidationError:
        raise InvalidField(place, complaint) from None
    except (DecodeError, UnicodeDecodeError):
        raise InvalidField(place, "is not valid JSON") from None
    except RecursionError:
        raise InvalidField("body", "is nested too deeply") from None


def _complaint(descriptor: Descriptor, value: Mapping[str, Any], place: str) -> InvalidField:
    """Finds the first field that does not parse by itself."""
    for name, item in value.items():
        field = fields_of(descriptor)[name]
        try:
            json_format.ParseDict({name: item}, GetMessageClass(descriptor)())
        except json_format.ParseError:
            inner = message_in(field)
            if inner and isinstance(item, dict):
                return _complaint(inner, item, f"{place}{name}.")
            return InvalidField(place + name, f"is not {_wanted(field)}")
    return InvalidField(place.rstrip(".") or "body", "is not valid")


def _wanted(field: FieldDescriptor) -> str:
    if is_map(field):
        return "an object of the right keys and values"
    wanted = TYPES.get(field.cpp_type, "valid")
    return f"a list, or an element is not {wanted}" if field.is_repeated else wanted
