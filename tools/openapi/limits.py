"""Limits of fields, read out of the contract's comments, which state them in a few fixed forms."""

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from entrypoints.rest.proto_json import is_map

_MAP = re.compile(
    r"[Aa]t most (?P<most>[\d,]+) entries; keys of (?P<shortest>\d+) to (?P<longest>[\d,]+) characters "
    r"out of (?P<alphabet>[^;]+); values of at most (?P<value>[\d,]+) characters"
)
_LIST = re.compile(r"[Aa]t most (?P<most>[\d,]+)[;.]")
_TEXT = re.compile(r"(?:(?P<least>\d+) to|[Aa]t most) (?P<most>[\d,]+) (?P<ascii>visible ASCII )?characters")
_NUMBER = re.compile(r"\b(?P<least>\d+) to (?P<most>[\d,]+)\b")
_NOT_NEGATIVE = re.compile(r"[Nn]egative is INVALID_FIELD")
_NUMBERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT,
)


def limits_of(field: FieldDescriptor, comment: str) -> dict[str, Any]:
    """Returns the keywords of JSON Schema that say what the comment says; none where it states no limit."""
    if is_map(field):
        return _map_limits(comment)
    if field.is_repeated:
        return {"maxItems": _number(found["most"])} if (found := _LIST.search(comment)) else {}
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text_limits(comment)
    return _number_limits(comment) if field.cpp_type in _NUMBERS else {}


def _map_limits(comment: str) -> dict[str, Any]:
    if not (found := _MAP.search(comment)):
        return {}
    letters = "".join(a or re.escape(b) for a, b in re.findall(r"(\w-\w)|`(.)`", found["alphabet"]))
    pattern = f"^[{letters}]{{{found['shortest']},{_number(found['longest'])}}}$"
    return {
        "maxProperties": _number(found["most"]),
        "propertyNames": {"pattern": pattern},
        "additionalProperties": {"type": "string", "maxLength": _number(found["value"])},
    }


def _text_limits(comment: str) -> dict[str, Any]:
    if not (found := _TEXT.search(comment)):
        return {}
    least = {"minLength": int(found["least"])} if found["least"] else {}
    letters = {"pattern": "^[!-~]*$"} if found["ascii"] else {}
    return {**least, "maxLength": _number(found["most"]), **letters}


def _number_limits(comment: str) -> dict[str, Any]:
    if found := _NUMBER.search(comment):
        return {"minimum": int(found["least"]), "maximum": _number(found["most"])}
    return {"minimum": 0} if _NOT_NEGATIVE.search(comment) else {}


def _number(text: str) -> int:
    return int(text.replace(",", ""))
