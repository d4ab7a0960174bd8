"""The tree of errors: each concrete one has its reason, a sentence, and its facts as metadata."""

import inspect
import re
from uuid import UUID

import pytest

from chatback.v1.error_reason_pb2 import ErrorReason
from domain import errors
from domain.errors import CallsTooFrequent, ChatBackError, InvalidField, PromptTooLong, RunInProgress
from entrypoints.rest import refusals

REFUSED_OVER_HTTP = {value.reason for value in vars(refusals).values() if isinstance(value, refusals.Refusal)}
NOT_RAISED_AS_ERRORS = {"UNSPECIFIED", "INTERNAL", "DEADLINE_EXCEEDED"} | REFUSED_OVER_HTTP
LISTED = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - it is an enum's wrapper


Kind = type[ChatBackError]


def descendants(kind: Kind) -> set[Kind]:
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


ALL = sorted(descendants(ChatBackError), key=str)
CONCRETE = [kind for kind in ALL if hasattr(kind, "reason")]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_reason_or_is_a_kind_of_several(kind: Kind) -> None:
    assert hasattr(kind, "reason") or kind.__subclasses__()


@pytest.mark.parametrize("kind", CONCRETE)
def test_every_reason_is_in_the_published_catalogue(kind: Kind) -> None:
    assert kind.reason in LISTED - NOT_RAISED_AS_ERRORS


@pytest.mark.parametrize("kind", CONCRETE)
def test_a_reason_is_the_name_of_its_error(kind: Kind) -> None:
    assert kind.reason == re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


def test_no_two_errors_share_a_reason() -> None:
    assert len({kind.reason for kind in CONCRETE}) == len(CONCRETE)


def test_every_published_reason_is_some_error_s() -> None:
    assert {kind.reason for kind in CONCRETE} == LISTED - NOT_RAISED_AS_ERRORS


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = set(re.findall(r"[A-Z]\w+", inspect.getdoc(errors) or ""))
    assert {kind.__name__ for kind in descendants(ChatBackError)} <= drawn


def test_an_error_s_text_is_its_message() -> None:
    assert str(InvalidField("title", "is required")) == "title is required"


def test_a_wrong_field_is_named_beside_its_rule() -> None:
    error = InvalidField("title", "is required")
    assert (error.field, error.rule, error.metadata) == ("title", "is required", {"field": "title"})


def test_a_prompt_that_is_too_long_is_the_content_s_fault() -> None:
    assert PromptTooLong(100).field == "content"


def test_too_many_calls_are_told_when_to_come_back() -> None:
    error = CallsTooFrequent(200, 0.25)
    assert (error.retry_after, error.metadata) == (0.25, {"limit": "200"})


def test_a_run_in_progress_is_named() -> None:
    assert RunInProgress(UUID(int=7)).metadata == {"run_id": str(UUID(int=7))}


def test_every_reason_of_http_alone_is_in_the_published_catalogue() -> None:
    assert REFUSED_OVER_HTTP
    assert REFUSED_OVER_HTTP <= LISTED
