"""The OpenAPI document says what the shim does: its paths, its JSON and its errors."""

import json
import tomllib
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from chatback.v1 import conversation_pb2, run_pb2
from domain.errors import CallsTooFrequent, ConversationNotFound, InvalidField, RunInProgress
from entrypoints.grpc import errors
from entrypoints.grpc.pipeline import PUBLIC_METHODS
from entrypoints.grpc.server import SERVICES
from entrypoints.rest import refusals
from entrypoints.rest.answers import error_json
from entrypoints.rest.app import FILES, FOLDER
from entrypoints.rest.failures import refusal_answer
from entrypoints.rest.http_rules import http_rules
from entrypoints.rest.proto_json import to_json
from entrypoints.rest.refusals import Refused
from tests.unit.library import POOL, Book
from tools.openapi.limits import limits_of
from tools.openapi.operations import path_of
from tools.openapi.pages import pages
from tools.openapi.schemas import Schemas

DOCUMENT: dict[str, Any] = json.loads((FOLDER / "openapi.json").read_bytes())
RULES = list(http_rules(SERVICES))
ROOT = Path(__file__).parents[2]


def operation(name: str) -> dict[str, Any]:
    """Returns the operation of this operationId."""
    return next(each for item in DOCUMENT["paths"].values() for each in item.values() if each["operationId"] == name)


def complaints(component: str, value: object) -> list[str]:
    """Returns what is wrong with a value, by the schema of this name."""
    schema = {"$ref": f"#/components/schemas/{component}", "components": DOCUMENT["components"]}
    return [error.message for error in OAS31Validator(schema).iter_errors(value)]


# The document


def test_the_document_is_valid() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_it_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["version"] == project["version"]


def test_it_has_every_route_and_no_other() -> None:
    routes = {(path_of(rule), rule.verb.lower()) for rule in RULES}
    routes |= {(path, "get") for path in pages()}
    assert {(path, verb) for path, item in DOCUMENT["paths"].items() for verb in item} == routes


def test_it_has_every_file_that_is_served() -> None:
    assert DOCUMENT["paths"].keys() >= FILES.keys()


def test_only_public_methods_need_no_token() -> None:
    tags = {name.rpartition(".")[2] for name in SERVICES}
    found = [each for item in DOCUMENT["paths"].values() for each in item.values() if each["tags"][0] in tags]
    public = {each["operationId"] for each in found if each.get("security") == []}
    listed = {name.removeprefix("/chatback.v1.").replace("/", "_") for name in PUBLIC_METHODS if "chatback" in name}
    assert public == listed


def test_operations_and_fields_have_the_contract_s_comments() -> None:
    send = operation("ChatService_SendMessage")
    assert send["summary"].startswith("Adds the user's message")
    assert "\n\nReasons: " in send["description"]
    fields = send["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert all(field["description"] for field in fields.values())


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("AuthService_Register", "200 400 403 408 409 411 413 415 429 431 500 503 504"),
        ("AuthService_GetCurrentUser", "200 400 401 403 408 429 431 500 503 504"),
        ("ChatService_RegenerateMessage", "200 400 401 403 404 408 409 411 413 415 426 429 431 500 503 504"),
        ("ChatService_StreamRun", "200 204 400 401 403 404 408 426 429 431 500 503 504"),
        ("ConversationService_CreateConversation", "200 400 401 403 404 408 409 411 413 415 429 431 500 503 504"),
    ],
)
def test_an_operation_lists_the_statuses_it_can_end_with(name: str, statuses: str) -> None:
    assert " ".join(operation(name)["responses"]) == statuses


def test_fields_of_the_path_are_not_in_the_body() -> None:
    send = operation("ChatService_SendMessage")
    assert [each["name"] for each in send["parameters"] if "name" in each] == ["conversation_id"]
    fields = send["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert list(fields) == ["content", "requestId", "parentMessageId", "options", "editedMessageId"]


def test_what_is_not_in_the_path_of_a_get_is_in_the_query() -> None:
    listing = operation("ConversationService_ListMessages")
    assert [each["name"] for each in listing["parameters"] if each.get("in") == "query"] == [
        "pageSize",
        "pageToken",
        "leafMessageId",
        "allBranches",
    ]


# What the shim answers


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ("Conversation", conversation_pb2.Conversation()),
        ("Conversation", conversation_pb2.Conversation(metadata={"a": "b"}, create_time=Timestamp(seconds=1, nanos=5))),
        ("Message", conversation_pb2.Message(role=conversation_pb2.MESSAGE_ROLE_USER)),
        ("RunEvent", run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="a"))),
        ("RunEvent", run_pb2.RunEvent(completed=run_pb2.RunCompleted(message=conversation_pb2.Message()))),
    ],
)
def test_messages_are_as_their_schema_says(component: str, message: Message) -> None:
    assert complaints(component, json.loads(to_json(message))) == []


def test_two_cases_of_a_oneof_are_not_as_the_schema_says() -> None:
    event = json.loads(to_json(run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="a"))))
    assert complaints("RunEvent", {**event, "cancelled": {}})


@pytest.mark.parametrize(
    "answer",
    [
        error_json(errors.status_of(ConversationNotFound())),
        error_json(errors.status_of(InvalidField("title", "is too long"))),
        error_json(errors.status_of(RunInProgress(UUID(int=1)))),
        error_json(errors.status_of(CallsTooFrequent(200, 0.5))),
        error_json(errors.deadline_exceeded()),
        error_json(errors.internal_error("1")),
        refusal_answer(Refused(refusals.BODY_TOO_LARGE, limit="5"), "1").body,
    ],
)
def test_errors_are_as_their_schema_says(answer: bytes) -> None:
    assert complaints("Error", json.loads(answer)) == []


def test_every_reason_of_a_refusal_is_listed() -> None:
    reasons = {each.reason for each in vars(refusals).values() if isinstance(each, refusals.Refusal)}
    assert set(DOCUMENT["components"]["schemas"]["ErrorInfo"]["properties"]["reason"]["enum"]) >= reasons


def test_refusals_stand_under_the_status_they_have() -> None:
    told = {
        (http, response["$ref"].rpartition("/")[2])
        for item in DOCUMENT["paths"].values()
        for each in item.values()
        for http, response in each["responses"].items()
        if "$ref" in response
    }
    refused = {each for each in vars(refusals).values() if isinstance(each, refusals.Refusal)}
    reasons = {reason for _, reason in told}
    assert {(str(each.http), each.reason) for each in refused if each.reason in reasons} <= told


def test_every_code_is_listed() -> None:
    codes = DOCUMENT["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["status"]["enum"]
    assert set(codes) == {code.name for code in grpc.StatusCode}


# How it is made

BOOK: Descriptor = POOL.FindMessageTypeByName("library.Book")


def of_book(field: str, comment: str = "", *, taken: bool = False) -> dict[str, Any]:
    schema = Schemas({f"library.Book.{field}": comment}).field(BOOK.fields_by_name[field], taken=taken)
    return {key: value for key, value in schema.items() if key != "description"}


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        ("name", {"type": "string"}),
        ("page_count", {"type": "integer", "format": "int32"}),
        ("copies_sold", {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}),
        ("is_new", {"type": "boolean"}),
        ("price", {"type": "number", "format": "double"}),
        ("cover", {"$ref": "#/components/schemas/library.Cover"}),
        ("tags", {"type": "array", "items": {"type": "string"}}),
        ("shelf", {"$ref": "#/components/schemas/library.Shelf"}),
        ("shelves", {"type": "array", "items": {"$ref": "#/components/schemas/library.Shelf"}}),
        ("printed", {"type": "string", "format": "date-time"}),
        ("extra", {"type": "object"}),
        ("notes", {"type": "object", "additionalProperties": {"type": "string"}}),
        ("scan", {"type": "string", "contentEncoding": "base64"}),
        ("sequel", {"$ref": "#/components/schemas/library.Book"}),
    ],
)
def test_a_field_has_the_schema_of_its_json(field: str, schema: dict[str, Any]) -> None:
    assert of_book(field) == schema


def test_a_field_that_may_be_left_out_may_be_null() -> None:
    assert of_book("name", "Its name.", taken=True) == {"type": ["string", "null"]}
    assert of_book("shelf", taken=True)["anyOf"][1] == {"type": "null"}


def test_a_required_field_may_not_be_null() -> None:
    assert of_book("name", "Its name. Required.", taken=True) == {"type": "string"}
    body = Schemas({"library.Book.name": "Its name. Required."}).body(BOOK, ())
    assert body["required"] == ["name"]


def test_what_has_no_presence_is_always_in_an_answer() -> None:
    schemas = Schemas({})
    schemas.answered(BOOK)
    needed = set(schemas.components["library.Book"]["required"])
    assert needed == json.loads(to_json(Book())).keys()


@pytest.mark.parametrize(
    ("field", "comment", "limits"),
    [
        ("name", "Its name.", {}),
        ("name", "At most 1,000 characters.", {"maxLength": 1000}),
        ("name", "Its name, at most 7 characters. Required.", {"maxLength": 7}),
        ("name", "Its name, 2 to 7 characters.", {"minLength": 2, "maxLength": 7}),
        ("name", "At most 7 visible ASCII characters.", {"maxLength": 7, "pattern": "^[!-~]*$"}),
        ("page_count", "From 1 to 1,000; 0 is nothing.", {"minimum": 1, "maximum": 1000}),
        ("page_count", "0 is 20; negative is INVALID_FIELD.", {"minimum": 0}),
        ("price", "What it costs, 0 to 2.", {"minimum": 0, "maximum": 2}),
        ("tags", "At most 20; each a word.", {"maxItems": 20}),
        ("shelf", "At most 20.", {}),
        (
            "notes",
            "At most 2 entries; keys of 1 to 3 characters out of a-z and `_`; values of at most 4 characters.",
            {
                "maxProperties": 2,
                "propertyNames": {"pattern": "^[a-z_]{1,3}$"},
                "additionalProperties": {"type": "string", "maxLength": 4},
            },
        ),
    ],
)
def test_limits_are_read_out_of_comments(field: str, comment: str, limits: dict[str, Any]) -> None:
    assert limits_of(BOOK.fields_by_name[field], comment) == limits
