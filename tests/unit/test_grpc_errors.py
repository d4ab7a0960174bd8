"""Each error has one status code, and details that programs can read."""

from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from chatback.v1.error_reason_pb2 import ErrorReason
from domain.errors import (
    CallsTooFrequent,
    ChatBackError,
    ConversationNotFound,
    CursorAhead,
    EmailTaken,
    InvalidField,
    ModelNotFound,
    ModelStalled,
    PermissionMissing,
    PromptTooLong,
    ReplicaDraining,
    RunInProgress,
    TokenInvalid,
)
from entrypoints.grpc import errors
from tests.builders import new_id

D = TypeVar("D", bound=Message)

CODES = [
    (ConversationNotFound(), grpc.StatusCode.NOT_FOUND),
    (EmailTaken(), grpc.StatusCode.ALREADY_EXISTS),
    (InvalidField("title", "is required"), grpc.StatusCode.INVALID_ARGUMENT),
    (PromptTooLong(9), grpc.StatusCode.INVALID_ARGUMENT),
    (CursorAhead(4), grpc.StatusCode.OUT_OF_RANGE),
    (TokenInvalid(), grpc.StatusCode.UNAUTHENTICATED),
    (PermissionMissing(), grpc.StatusCode.PERMISSION_DENIED),
    (RunInProgress(new_id()), grpc.StatusCode.FAILED_PRECONDITION),
    (CallsTooFrequent(200, 0.25), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ReplicaDraining(), grpc.StatusCode.UNAVAILABLE),
    (ModelStalled(20), grpc.StatusCode.UNAVAILABLE),
]


def concrete(kind: type[ChatBackError]) -> set[type[ChatBackError]]:
    """Returns all errors below a kind that say their reason."""
    below = set[type[ChatBackError]]().union(*(concrete(child) for child in kind.__subclasses__()))
    return below | {kind} if hasattr(kind, "reason") else below


def detail(status: status_pb2.Status, kind: type[D]) -> D | None:
    """Returns the status's detail of a type, None where there is none."""
    return next((kind.FromString(packed.value) for packed in status.details if packed.Is(kind.DESCRIPTOR)), None)


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: getattr(value, "reason", ""))
def test_a_kind_of_error_has_its_code(error: ChatBackError, code: grpc.StatusCode) -> None:
    assert errors.code_of(error) is code
    assert errors.status_of(error).code == code_pb2.Code.Value(code.name)


@pytest.mark.parametrize("kind", sorted(concrete(ChatBackError), key=str))
def test_every_error_has_a_code(kind: type[ChatBackError]) -> None:
    assert any(issubclass(kind, listed) for listed in errors.CODES)


@pytest.mark.parametrize(("error", "_"), CODES, ids=lambda value: getattr(value, "reason", ""))
def test_every_status_says_reason_domain_and_facts(error: ChatBackError, _: grpc.StatusCode) -> None:
    info = detail(errors.status_of(error), error_details_pb2.ErrorInfo)
    assert info is not None
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, "chatback", error.metadata)


def test_a_status_carries_the_error_s_sentence() -> None:
    assert errors.status_of(ModelNotFound("small")).message == "no such model; the configured ones are: small"


def test_a_wrong_field_is_named_in_a_bad_request() -> None:
    bad = detail(errors.status_of(InvalidField("title", "is required")), error_details_pb2.BadRequest)
    assert bad is not None
    assert [(found.field, found.description) for found in bad.field_violations] == [("title", "is required")]


def test_a_prompt_that_is_too_long_is_a_bad_request_of_content() -> None:
    bad = detail(errors.status_of(PromptTooLong(9)), error_details_pb2.BadRequest)
    assert bad is not None
    assert [found.field for found in bad.field_violations] == ["content"]


def test_a_limit_says_when_to_come_back() -> None:
    retry = detail(errors.status_of(CallsTooFrequent(200, 0.25)), error_details_pb2.RetryInfo)
    assert retry is not None
    assert retry.retry_delay.ToMilliseconds() == 250


@pytest.mark.parametrize("error", [ConversationNotFound(), ReplicaDraining()])
def test_what_no_waiting_or_field_explains_has_no_further_details(error: ChatBackError) -> None:
    assert len(errors.status_of(error).details) == 1


def test_a_defect_says_its_incident_and_nothing_else() -> None:
    status = errors.internal_error("abc")
    info = detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert (status.code, status.message) == (code_pb2.INTERNAL, "internal error")
    assert (info.reason, dict(info.metadata)) == ("INTERNAL", {"incident_id": "abc"})


def test_a_deadline_says_so() -> None:
    status = errors.deadline_exceeded()
    info = detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert (status.code, info.reason) == (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("reason", ["INTERNAL", "DEADLINE_EXCEEDED"])
def test_reasons_without_an_error_of_ours_are_in_the_catalogue(reason: str) -> None:
    assert ErrorReason.Value(f"ERROR_REASON_{reason}")
