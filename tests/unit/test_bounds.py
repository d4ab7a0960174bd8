"""What comes from outside is checked once; a refusal names the field and its limit."""

import math
from uuid import UUID, uuid4

import pytest

from domain import bounds
from domain.errors import InvalidField


def test_text_within_its_bounds_is_returned_unchanged() -> None:
    assert bounds.text("title", "Regen \u2602", at_least=1, at_most=7) == "Regen \u2602"


def test_the_longest_text_is_let_through() -> None:
    assert bounds.text("title", "x" * 200, at_most=200) == "x" * 200


def test_a_longer_text_is_told_limit_and_length() -> None:
    with pytest.raises(InvalidField, match="title must have at most 200 characters, has 201"):
        bounds.text("title", "x" * 201, at_most=200)


def test_length_counts_code_points_not_bytes() -> None:
    assert bounds.text("title", "\U0001f327" * 200, at_most=200)


def test_a_missing_text_is_told_that_it_is_required() -> None:
    with pytest.raises(InvalidField, match="content is required"):
        bounds.text("content", "", at_least=1, at_most=10)


def test_a_text_that_is_too_short_is_told_the_least() -> None:
    with pytest.raises(InvalidField, match="must have at least 3 characters"):
        bounds.text("name", "ab", at_least=3, at_most=10)


@pytest.mark.parametrize("bad", ["\x00", "a\x00b", "\ud800", "a\udc80"])
def test_text_without_a_place_in_the_database_is_refused(bad: str) -> None:
    with pytest.raises(InvalidField, match="NUL or lone surrogates"):
        bounds.text("content", bad, at_most=10)


@pytest.mark.parametrize("good", ["", "a", "!~", "x" * 255])
def test_visible_ascii_is_let_through(good: str) -> None:
    assert bounds.visible("request_id", good, at_most=255) == good


@pytest.mark.parametrize("bad", ["a b", "a\n", "\x7f", "\u00e9", "\t"])
def test_what_is_not_visible_ascii_is_refused(bad: str) -> None:
    with pytest.raises(InvalidField, match="request_id must hold visible ASCII characters only"):
        bounds.visible("request_id", bad, at_most=255)


@pytest.mark.parametrize("value", [0.0, 0.7, 2.0])
def test_both_bounds_of_a_number_belong_to_it(value: float) -> None:
    assert bounds.number("temperature", value, at_least=0.0, at_most=2.0) == value


@pytest.mark.parametrize("value", [-0.1, 2.1, math.inf, -math.inf, math.nan])
def test_a_number_outside_its_bounds_is_refused(value: float) -> None:
    with pytest.raises(InvalidField, match="temperature must be from"):
        bounds.number("temperature", value, at_least=0.0, at_most=2.0)


def test_an_id_is_read_in_either_case() -> None:
    made = uuid4()
    assert bounds.identifier("run_id", str(made).upper()) == made


def test_a_missing_id_is_told_that_it_is_required() -> None:
    with pytest.raises(InvalidField, match="run_id is required"):
        bounds.identifier("run_id", "")


@pytest.mark.parametrize(
    "bad", ["x", str(uuid4())[:-1], f"{{{uuid4()}}}", uuid4().hex, f"urn:uuid:{uuid4()}", f"{uuid4()}\n", "\u0661" * 36]
)
def test_what_is_no_id_is_refused(bad: str) -> None:
    with pytest.raises(InvalidField, match="run_id is not an id of this service"):
        bounds.identifier("run_id", bad)


def test_an_optional_id_may_be_missing() -> None:
    assert bounds.optional_identifier("parent_message_id", "") is None


def test_an_optional_id_that_is_there_is_read() -> None:
    assert bounds.optional_identifier("parent_message_id", str(UUID(int=7))) == UUID(int=7)


def test_one_of_two_fields_may_be_given() -> None:
    bounds.absent("leaf_message_id", None, beside="all_branches")


def test_a_second_field_is_refused_with_the_first_one_s_name() -> None:
    with pytest.raises(InvalidField, match="leaf_message_id must be empty where all_branches is given"):
        bounds.absent("leaf_message_id", UUID(int=7), beside="all_branches")


def test_a_list_may_have_as_many_entries_as_its_limit() -> None:
    bounds.at_most("metadata", range(16), 16)


def test_a_longer_list_is_told_limit_and_length() -> None:
    with pytest.raises(InvalidField, match="metadata must have at most 16 entries, has 17"):
        bounds.at_most("metadata", range(17), 16)
