"""Users, what they say of themselves, and the sessions that follow."""

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain import identity
from domain.errors import InvalidField
from domain.identity import REFRESH_GRACE, Registration, Session, Tokens

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MONTH = timedelta(days=30)


def a_session(*, generation: int = 5, age: timedelta = timedelta(0), end_time: datetime | None = None) -> Session:
    """A session whose newest refresh token was given out `age` ago."""
    return Session(
        session_id=uuid4(),
        workspace_id=uuid4(),
        user_id=uuid4(),
        salt=b"s" * 32,
        generation=generation,
        rotate_time=NOW - age,
        expire_time=NOW - age + MONTH,
        end_time=end_time,
    )


@pytest.mark.parametrize("given_email", ["ada@example.org", "operator@localhost", "a.b+c@x.example.co", "\u00e9@x.org"])
def test_an_address_is_accepted(given_email: str) -> None:
    assert identity.email(given_email) == given_email


@pytest.mark.parametrize(
    "given_email",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "a da@example.org",
        "ada@@example.org",
        "ada@example..org",
        "ada@.org",
        "ada@org.",
        "ada@example.org\n",
        "ada\0@example.org",
        "\ud800@example.org",
        "a" * 243 + "@example.org",
    ],
)
def test_what_is_no_address_is_refused_by_the_field_s_name(given_email: str) -> None:
    with pytest.raises(InvalidField) as refused:
        identity.email(given_email)
    assert refused.value.field == "email"


def test_an_address_of_254_characters_is_accepted() -> None:
    assert len(identity.email("a" * 242 + "@example.org")) == 254


def test_addresses_that_differ_in_case_are_one() -> None:
    assert identity.email("Ada@Example.ORG") == "ada@example.org"


def test_addresses_that_differ_in_composition_are_one() -> None:
    assert identity.email("cafe\u0301@example.org") == identity.email("caf\u00e9@example.org")


@pytest.mark.parametrize("length", [12, 73, 128])
def test_a_password_of_12_to_128_characters_is_accepted(length: int) -> None:
    assert identity.password("x" * length) == "x" * length


@pytest.mark.parametrize("length", [0, 11, 129, 4_000_000])
def test_a_password_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidField, match="must have 12 to 128 characters"):
        identity.password("x" * length)


def test_a_long_password_is_refused_before_it_is_composed() -> None:
    marks = "\u0300\u0316" * 100_000  # to sort these takes half a minute
    begin = time.process_time()
    with pytest.raises(InvalidField):
        identity.password("a" + marks)
    assert time.process_time() - begin < 1


def test_a_password_is_as_long_as_its_composed_form() -> None:
    assert len(identity.password("e\u0301" * 128)) == 128


def test_a_password_needs_no_kinds_of_characters() -> None:
    assert identity.password("correct horse battery staple")
    assert identity.password("\U0001f40e" * 12)


@pytest.mark.parametrize("bad", ["\0", "\ud800"])
def test_a_password_holds_neither_nul_nor_lone_surrogates(bad: str) -> None:
    with pytest.raises(InvalidField):
        identity.password("correct horse" + bad)


def test_the_refusal_of_a_password_names_its_field_and_not_its_value() -> None:
    with pytest.raises(InvalidField) as refused:
        identity.password("hunter2", "new_password")
    assert (refused.value.field, "hunter2" in refused.value.message) == ("new_password", False)


@given(st.text(max_size=200))
@example("a\u0300\u0316" * 60)
def test_a_password_that_is_accepted_stays_as_it_is(text: str) -> None:
    try:
        normal = identity.password(text)
    except InvalidField:
        return
    assert identity.password(normal) == normal


def test_a_registration_is_normalised() -> None:
    registration = Registration(email="Ada@Example.org", password="cafe\u0301 cafe\u0301 cafe", display_name="Ada")
    assert (registration.email, registration.password) == ("ada@example.org", "caf\u00e9 caf\u00e9 cafe")


def test_a_registration_needs_no_name() -> None:
    assert Registration(email="ada@example.org", password="correct horse", display_name="").display_name == ""


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("email", {"email": "ada"}),
        ("password", {"password": "short"}),
        ("display_name", {"display_name": "x" * 101}),
        ("display_name", {"display_name": "\0"}),
    ],
)
def test_a_registration_names_the_field_that_is_wrong(field: str, change: dict[str, str]) -> None:
    honest = {"email": "ada@example.org", "password": "correct horse", "display_name": "Ada"}
    with pytest.raises(InvalidField) as refused:
        Registration(**{**honest, **change})
    assert refused.value.field == field


def test_a_session_is_open_until_it_expires() -> None:
    session = a_session()
    assert session.is_open(session.expire_time - timedelta(microseconds=1))
    assert not session.is_open(session.expire_time)


def test_a_session_that_was_ended_is_not_open() -> None:
    assert not a_session(end_time=NOW).is_open(NOW)


def test_the_newest_token_rotates_the_session() -> None:
    refreshed = a_session(generation=5, age=timedelta(days=1)).refreshed(5, NOW, MONTH)
    assert refreshed is not None
    assert (refreshed.generation, refreshed.rotate_time, refreshed.expire_time) == (6, NOW, NOW + MONTH)


def test_the_token_before_the_newest_gives_the_same_successor_for_ten_seconds() -> None:
    session = a_session(generation=5, age=REFRESH_GRACE)
    assert session.refreshed(4, NOW, MONTH) == session


def test_after_ten_seconds_the_token_before_the_newest_is_spent() -> None:
    assert a_session(generation=5, age=REFRESH_GRACE + timedelta(microseconds=1)).refreshed(4, NOW, MONTH) is None


@pytest.mark.parametrize("generation", [0, 1, 3, 6, 99])
def test_any_other_token_is_spent(generation: int) -> None:
    assert a_session(generation=5).refreshed(generation, NOW, MONTH) is None


def test_printing_shows_neither_passwords_nor_salts_nor_tokens() -> None:
    shown = [
        Registration(email="ada@example.org", password="a secret of mine", display_name=""),
        a_session(),
        Tokens(access_token="a secret", access_expire_time=NOW, refresh_token="a secret", refresh_expire_time=NOW),
    ]
    assert not [each for each in shown if "secret" in repr(each) or "sss" in repr(each)]
