"""What path, query and body become, by the rules of proto JSON, and which of them are refused."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message

from domain.errors import InvalidField
from entrypoints.rest import proto_json, request
from tests.unit.library import Book


def book(**fields: Any) -> Message:
    return Book(**fields)


def from_body(value: object) -> Message:
    made = Book()
    request.fill_from_body(made, "*", value if isinstance(value, bytes) else json.dumps(value).encode())
    return made


def from_query(query: str, *elsewhere: str) -> Message:
    made = Book()
    request.fill_from_query(made, query, elsewhere)
    return made


def nested(depth: int) -> dict[str, Any]:
    return {"sequel": nested(depth - 1)} if depth > 1 else {}


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({}, {}),
        ({"name": "a"}, {"name": "a"}),
        ({"name": None}, {}),
        ({"pageCount": 7}, {"page_count": 7}),
        ({"page_count": 7}, {"page_count": 7}),
        ({"pageCount": "7"}, {"page_count": 7}),
        ({"pageCount": 7.0}, {"page_count": 7}),
        ({"copiesSold": "9007199254740993"}, {"copies_sold": 9007199254740993}),
        ({"copiesSold": 9007199254740993}, {"copies_sold": 9007199254740993}),
        ({"cover": "COVER_HARD"}, {"cover": 1}),
        ({"cover": 1}, {"cover": 1}),
        ({"price": "Infinity"}, {"price": float("inf")}),
        ({"isNew": True}, {"is_new": True}),
        ({"tags": ["a", "b"]}, {"tags": ["a", "b"]}),
        ({"notes": {"a": "b"}}, {"notes": {"a": "b"}}),
        ({"scan": "AAE="}, {"scan": b"\0\1"}),
        ({"shelf": {"heightCm": 5}}, {"shelf": {"height_cm": 5}}),
        ({"shelves": [{"name": "x"}, {}]}, {"shelves": [{"name": "x"}, {}]}),
        ({"shelf": None, "shelves": None}, {}),
        ({"shelf": {}}, {"shelf": {}}),
        ({"name": "\0\U0001f600"}, {"name": "\0\U0001f600"}),
    ],
)
def test_a_body_sets_fields_in_either_spelling(value: object, fields: dict[str, Any]) -> None:
    assert from_body(value) == book(**fields)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"", "body"),
        (b"nul", "body"),
        (b'{"name": "a"', "body"),
        (b'{"name": "a"} x', "body"),
        (b"{'name': 1}", "body"),
        (b'{"name": "\xff"}', "name"),
        (b'{"name": "\\ud800"}', "body"),
        (b'{"price": NaN}', "body"),
        (b"\xef\xbb\xbf{}", "body"),
        (b"[" * 100_000, "body"),
        (b'{"a":' * 100_000, "body"),
        (b'{"pageCount": ' + b"1" * 5000 + b"}", "page_count"),
        ([], "body"),
        ("x", "body"),
        (None, "body"),
        (7, "body"),
        ({"nome": 1}, "nome"),
        ({"": 1}, "body"),
        ({"Name": "a"}, "Name"),
        ({"shelf": {"nome": 1}}, "shelf.nome"),
        ({"shelves": [{}, {"nome": 1}]}, "shelves.nome"),
        ({"name": 1}, "name"),
        ({"name": ["a"]}, "name"),
        ({"name": {}}, "name"),
        ({"pageCount": "x"}, "page_count"),
        ({"pageCount": 1.5}, "page_count"),
        ({"pageCount": True}, "page_count"),
        ({"pageCount": 2**31}, "page_count"),
        ({"pageCount": ""}, "page_count"),
        ({"copiesSold": 2**63}, "copies_sold"),
        ({"isNew": "true"}, "is_new"),
        ({"isNew": 1}, "is_new"),
        ({"price": "x"}, "price"),
        ({"price": True}, "price"),
        ({"cover": "HARD"}, "cover"),
        ({"tags": "a"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"tags": [None]}, "tags"),
        ({"notes": []}, "notes"),
        ({"notes": {"a": 1}}, "notes"),
        ({"shelf": []}, "shelf"),
        ({"shelf": ""}, "shelf"),
        ({"shelf": 0}, "shelf"),
        ({"shelf": [{}]}, "shelf"),
        ({"shelf": {"heightCm": "x"}}, "shelf.height_cm"),
        ({"shelves": {}}, "shelves"),
        ({"shelves": [[]]}, "shelves"),
        ({"printed": "yesterday"}, "printed"),
        ({"printed": 5}, "printed"),
        ({"printed": "2" * 1001}, "printed"),
        ({"pageCount": 1, "page_count": 1}, "page_count"),
        ({"tags": ["a"] * 1001}, "tags"),
        ({"notes": {f"{number}": "" for number in range(1001)}}, "notes"),
        (nested(101), "body"),
        (nested(900), "body"),
        ({"extra": nested(101)}, "extra"),
    ],
)
def test_a_wrong_body_is_refused_by_the_field(value: object, field: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        from_body(value)
    assert refusal.value.field == field
    assert "protobuf" not in refusal.value.message


def test_depth_100_is_taken() -> None:
    assert from_body(nested(100)).ByteSize()


def test_a_body_for_one_field_leaves_the_others_alone() -> None:
    made = Book()
    request.fill_from_body(made, "shelf", b'{"name": "x"}')
    assert made == book(shelf={"name": "x"})


def test_a_body_is_refused_where_the_method_takes_none() -> None:
    with pytest.raises(InvalidField, match="body is not taken by this method"):
        request.fill_from_body(Book(), "", b"{}")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("name=a", {"name": "a"}),
        ("name=", {"name": ""}),
        ("name=a%20b%2Bc+d", {"name": "a b+c d"}),
        ("name=%C3%A4", {"name": "ä"}),
        ("pageCount=7&is_new=true", {"page_count": 7, "is_new": True}),
        ("is_new=false", {}),
        ("copies_sold=9007199254740993", {"copies_sold": 9007199254740993}),
        ("price=0.5", {"price": 0.5}),
        ("cover=COVER_HARD", {"cover": 1}),
        ("cover=1", {"cover": 1}),
        ("tags=a&tags=b", {"tags": ["a", "b"]}),
        ("shelf.name=x&shelf.heightCm=5", {"shelf": {"name": "x", "height_cm": 5}}),
        ("sequel.shelf.name=x", {"sequel": {"shelf": {"name": "x"}}}),
        ("scan=AAE%3D", {"scan": b"\0\1"}),
    ],
)
def test_a_query_sets_fields_in_either_spelling(query: str, fields: dict[str, Any]) -> None:
    assert from_query(query) == book(**fields)


def test_a_query_sets_a_timestamp() -> None:
    made: Any = from_query("printed=2026-01-02T03:04:05Z")
    assert made.printed.ToJsonString() == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nome=a", "nome"),
        ("shelf.nome=a", "shelf.nome"),
        ("name.x=a", "name.x"),
        ("=a", "query"),
        (".=a", "."),
        ("name", "query"),
        ("&&", "query"),
        ("name=%ff", "query"),
        ("&".join(["tags=a"] * 101), "query"),
        ("name=a&name=b", "name"),
        ("pageCount=1&page_count=2", "page_count"),
        ("pageCount=x", "page_count"),
        ("pageCount=", "page_count"),
        ("is_new=1", "is_new"),
        ("is_new=True", "is_new"),
        ("cover=HARD", "cover"),
        ("shelf=x", "shelf"),
        ("shelf.height_cm=x", "shelf.height_cm"),
        ("shelves.name=x", "shelves.name"),
        ("notes=x", "notes"),
        ("notes.a=b", "notes.a"),
        ("printed=x", "printed"),
    ],
)
def test_a_wrong_query_is_refused_by_the_field(query: str, field: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        from_query(query)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("query", "elsewhere"),
    [("name=a", "name"), ("shelf.name=a", "shelf.name"), ("shelf.height_cm=1", "shelf"), ("name=a", "*")],
)
def test_what_path_or_body_hold_is_refused_in_the_query(query: str, elsewhere: str) -> None:
    with pytest.raises(InvalidField, match="does not belong in the query"):
        from_query(query, elsewhere)


def test_a_path_sets_nested_and_typed_fields() -> None:
    made = Book()
    request.fill_from_path(made, "shelf.name", "shelves/3")
    request.fill_from_path(made, "page_count", "7")
    request.fill_from_path(made, "is_new", "true")
    assert made == book(shelf={"name": "shelves/3"}, page_count=7, is_new=True)


def test_a_path_wins_over_the_body() -> None:
    made = from_body({"name": "from the body"})
    request.fill_from_path(made, "name", "from the path")
    assert made == book(name="from the path")


def test_a_path_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(InvalidField, match="page_count is not a 32-bit integer"):
        request.fill_from_path(Book(), "page_count", "x")


def test_an_answer_holds_empty_fields_and_int64_as_text() -> None:
    answer = json.loads(proto_json.to_json(book(copies_sold=5, shelf={"name": "x"})))
    assert (answer["copiesSold"], answer["pageCount"], answer["tags"]) == ("5", 0, [])
    assert answer["cover"] == "COVER_UNSPECIFIED"
    assert answer["shelf"] == {"name": "x", "heightCm": 0}
    assert "sequel" not in answer


def test_an_answer_can_be_one_field() -> None:
    assert json.loads(proto_json.to_json(book(shelf={"name": "x"}), "shelf")) == {"name": "x", "heightCm": 0}
