"""From path, query, headers and body to the request message of a method."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from domain.errors import InvalidField
from entrypoints.rest import proto_json
from entrypoints.rest.proto_json import descriptor_of, fields_of, is_map, message_in

QUERY_FIELDS = 100
CURSOR = "after_seq"


def fill_from_body(message: Message, field: str, body: bytes) -> None:
    """Sets the whole message (`*`) or one field of it from JSON; no body is an empty object."""
    if not field:
        raise InvalidField("body", "is not taken by this method")
    proto_json.fill_from_json(message, body if field == "*" else b'{"%b":%b}' % (field.encode(), body))


def fill_from_query(message: Message, query: str, elsewhere: tuple[str, ...]) -> None:
    """Sets fields from a query: `options.model=x&tags=a&tags=b`. Those that come `elsewhere` are refused here."""
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=QUERY_FIELDS
        )
    except ValueError:
        raise InvalidField("query", f"is not a list of at most {QUERY_FIELDS} name=value in UTF-8") from None
    value: dict[str, Any] = {}
    for name, text in pairs:
        _put(value, descriptor_of(message), name, text, elsewhere)
    proto_json.fill(message, value)


def fill_from_path(message: Message, path: str, text: str) -> None:
    """Sets one field, `name` or `shelf.name`, from a path's value."""
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    if isinstance(getattr(message, name), str):
        setattr(message, name, text)
    else:
        proto_json.fill(message, {name: _scalar(descriptor_of(message).fields_by_name[name], text)})


def fill_from_last_event_id(message: Message, seq: bytes) -> None:
    """Sets the cursor: what a client that was cut off has seen counts, whatever its URL says."""
    if not seq.isdigit() or len(seq) > 10 or int(seq) >= 2**31:
        raise InvalidField("last-event-id", "is not the id of an event")
    setattr(message, CURSOR, int(seq))


def _put(value: dict[str, Any], descriptor: Descriptor, name: str, text: str, elsewhere: tuple[str, ...]) -> None:
    *parents, leaf = _fields(descriptor, name)
    path = [field.name for field in (*parents, leaf)]
    if not {"*", path[0], ".".join(path)}.isdisjoint(elsewhere):
        raise InvalidField(name[:100], "does not belong in the query of this path")
    for parent in parents:
        value = value.setdefault(parent.name, {})
    if leaf.is_repeated:
        value.setdefault(leaf.name, []).append(_scalar(leaf, text))
    elif leaf.name in value:
        raise InvalidField(name, "is given twice")
    else:
        value[leaf.name] = _scalar(leaf, text)


def _fields(descriptor: Descriptor, name: str) -> list[FieldDescriptor]:
    """Returns the fields that a dotted name leads through; the last one can be written as text."""
    found: list[FieldDescriptor] = []
    kind: Descriptor | None = descriptor
    for part in name.split("."):
        field = _named(kind, part)
        if field is None or (found and found[-1].is_repeated):
            raise InvalidField(name[:100] or "query", "is not a parameter of this path")
        found.append(field)
        kind = message_in(field)
    if kind is not None or is_map(found[-1]):
        raise InvalidField(name[:100], "cannot be given in a query")
    return found


def _named(kind: Descriptor | None, name: str) -> FieldDescriptor | None:
    fields: Mapping[str, FieldDescriptor] = fields_of(kind) if kind is not None else {}
    return fields.get(name)


def _scalar(field: FieldDescriptor, text: str) -> str | bool:
    """Returns what proto JSON has for the text: it takes strings for everything but true and false."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text
