"""Path templates match what google.api.http says they match."""

import pytest

from domain.errors import InvalidField
from entrypoints.rest.path_template import PathTemplate


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/v1/models", "/v1/models", ()),
        ("/v1/runs/{run_id}", "/v1/runs/7", ("7",)),
        ("/v1/runs/{run_id}:cancel", "/v1/runs/7:cancel", ("7",)),
        ("/v1/a/{a}/b/{b}:send", "/v1/a/1/b/2:send", ("1", "2")),
        ("/v1/{name=shelves/*}", "/v1/shelves/3", ("shelves/3",)),
        ("/v1/{name=shelves/*/books/*}:read", "/v1/shelves/3/books/4:read", ("shelves/3/books/4",)),
        ("/v1/{shelf.name=shelves/*}/books", "/v1/shelves/3/books", ("shelves/3",)),
        ("/v1/{path=**}", "/v1/a/b/c", ("a/b/c",)),
        ("/v1/{path=**}", "/v1/", ("",)),
        ("/v1/{path=files/**}:open", "/v1/files/a/b:open", ("files/a/b",)),
        ("/v1/*/books/**", "/v1/any/books/1/2", ()),
        ("/v1/auth.v2:login", "/v1/auth.v2:login", ()),
    ],
)
def test_a_path_that_fits_gives_its_values(template: str, path: str, values: tuple[str, ...]) -> None:
    assert PathTemplate(template).match(path) == values


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/v1/models", "/v1/models/"),
        ("/v1/models", "/v1/model"),
        ("/v1/models", "/V1/models"),
        ("/v1/auth.v2:login", "/v1/authXv2:login"),
        ("/v1/runs/{run_id}", "/v1/runs/"),
        ("/v1/runs/{run_id}", "/v1/runs/7/events"),
        ("/v1/runs/{run_id}", "/v1/runs/7:cancel"),
        ("/v1/runs/{run_id}:cancel", "/v1/runs/7"),
        ("/v1/runs/{run_id}:cancel", "/v1/runs/7:cancel:cancel"),
        ("/v1/{name=shelves/*}", "/v1/shelves/3/4"),
        ("/v1/{name=shelves/*}", "/v1/rooms/3"),
    ],
)
def test_a_path_that_does_not_fit_gives_nothing(template: str, path: str) -> None:
    assert PathTemplate(template).match(path) is None


@pytest.mark.parametrize(
    ("sent", "value"), [("a%20b", "a b"), ("a%3Ab", "a:b"), ("a%2Fb", "a/b"), ("%C3%A4", "ä"), ("a+b", "a+b")]
)
def test_values_are_decoded(sent: str, value: str) -> None:
    assert PathTemplate("/v1/{id}").match(f"/v1/{sent}") == (value,)


def test_a_slash_inside_a_segment_stays_encoded_where_a_value_spans_segments() -> None:
    assert PathTemplate("/v1/{path=**}").match("/v1/a%2fb/c%20d") == ("a%2Fb/c d",)


def test_a_value_that_is_no_utf_8_is_an_invalid_field() -> None:
    with pytest.raises(InvalidField, match="run_id is not UTF-8"):
        PathTemplate("/v1/{run_id}").match("/v1/%ff")


def test_a_template_names_its_fields() -> None:
    assert PathTemplate("/v1/{a.b=x/*}/{c}").fields == ("a.b", "c")


@pytest.mark.parametrize("text", ["/v1/{", "/v1/{}", "/v1/{a=}", "/v1/{a-b}", "/v1/}"])
def test_what_is_no_template_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="is no path template"):
        PathTemplate(text)
