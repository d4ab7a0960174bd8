"""Routes come from the contract alone, and every path leads to one method at most."""

import grpc
import pytest
from google.protobuf.descriptor_pool import Default

from entrypoints.grpc.server import SERVICES
from entrypoints.rest.http_rules import HttpRule, http_rules
from entrypoints.rest.refusals import METHOD_NOT_ALLOWED, PATH_UNKNOWN, Refused
from entrypoints.rest.routes import Routes, routes_over
from tests.unit.library import POOL, SERVICE


def rules() -> list[HttpRule]:
    return list(http_rules([SERVICE], POOL))


@pytest.fixture
async def routes() -> Routes:
    return routes_over(grpc.aio.insecure_channel("unix:/nowhere"), rules())


def test_every_binding_is_read() -> None:
    assert [(rule.method.name, rule.verb, rule.template.text, rule.body, rule.response_body) for rule in rules()] == [
        ("Get", "GET", "/v1/{name=books/*}", "", ""),
        ("Get", "GET", "/v1/{shelf.name=shelves/*}/books/{name}", "", ""),
        ("Get", "SEARCH", "/v1/{name=archive/**}", "", ""),
        ("Create", "POST", "/v1/books", "*", ""),
        ("Place", "PUT", "/v1/books/{name}:place", "shelf", "shelf"),
        ("Watch", "GET", "/v1/books/{name}:watch", "", ""),
    ]


def test_every_method_of_the_api_whose_client_does_not_stream_has_a_path() -> None:
    methods = [method for name in SERVICES for method in Default().FindServiceByName(name).methods]
    with_path = {rule.method.full_name for rule in http_rules(SERVICES)}
    assert {method.full_name for method in methods if not method.client_streaming} == with_path


def test_no_two_methods_of_the_api_share_a_path() -> None:
    places = [(rule.verb, rule.template.text) for rule in http_rules(SERVICES)]
    assert len(set(places)) == len(places)


async def test_a_path_leads_to_its_method_with_the_values_of_its_fields(routes: Routes) -> None:
    route, values = routes.find("GET", "/v1/shelves/3/books/4")
    assert (route.template.fields, values) == (("shelf.name", "name"), ("shelves/3", "4"))


async def test_a_verb_of_the_path_is_no_part_of_a_value(routes: Routes) -> None:
    route, values = routes.find("GET", "/v1/books/4:watch")
    assert (route.streams, values) == (True, ("4",))


async def test_an_unknown_path_is_refused(routes: Routes) -> None:
    with pytest.raises(Refused) as refused:
        routes.find("GET", "/v1/rooms")
    assert refused.value.refusal is PATH_UNKNOWN


async def test_another_verb_is_refused_with_those_that_are_taken(routes: Routes) -> None:
    with pytest.raises(Refused) as refused:
        routes.find("DELETE", "/v1/books/4:place")
    assert (refused.value.refusal, refused.value.headers) == (METHOD_NOT_ALLOWED, ((b"allow", b"PUT"),))
