"""The page at /docs in a real browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import CHROMIUM, Page, blank_page
from tests.e2e.caller import PASSWORD
from tests.e2e.conftest import copied
from tests.e2e.rest import post, rest_service, sign_in

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


@pytest.fixture(scope="module")
def url(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service answers."""
    with rest_service(copied(template, tmp_path_factory.mktemp("docs") / "data")) as serving:
        yield serving


@pytest.fixture
async def page(url: str, tmp_path: Path) -> AsyncIterator[Page]:
    """The page, drawn, at whose end nothing was wrong and nobody else was asked for anything."""
    async with blank_page(tmp_path / "browser") as opened:
        await opened.open(f"{url}/docs")
        await opened.until("document.querySelector('main')?.getAttribute('aria-busy') === 'false'")
        yield opened
        assert opened.complaints == []
        assert [request for request in opened.requests if not request.startswith((f"{url}/", "data:"))] == []


async def tried(page: Page, operation: str, body: dict[str, str] | None = None, **inputs: str) -> str:
    """Fills a form in, sends it, and returns what the page shows when all has come."""
    await page.run(f"location.hash = '#{operation}'")
    form = f"document.querySelector('#{operation} form')"
    await page.until(f"!!{form}")
    for name, value in inputs.items():
        await page.run(f"{form}.elements[{name!r}].value = {value!r}")
    if body is not None:
        await page.run(f"{form}.elements.body.value = {json.dumps(json.dumps(body))}")
    await page.run(f"{form}.querySelector('button').click()")
    return str(await page.until(f"!{form}.querySelector('button').disabled && {form}.querySelector('pre').textContent"))


async def test_every_operation_is_drawn_and_in_the_list(page: Page) -> None:
    paths = (await page.run("fetch('openapi.json').then(response => response.json())"))["paths"]
    names = {operation["operationId"] for item in paths.values() for operation in item.values()}
    drawn = await page.run("[...document.querySelectorAll('.operation')].map(each => each.id)")
    listed = await page.run("[...document.querySelectorAll('nav a')].map(each => each.hash.slice(1))")
    assert sorted(drawn) == sorted(listed) == sorted(names)


async def test_every_operation_can_be_opened(page: Page) -> None:
    await page.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    await page.until("document.querySelectorAll('form').length === document.querySelectorAll('.operation').length")


async def test_a_login_in_the_page_signs_the_calls_after_it(url: str, page: Page) -> None:
    person = {"email": "ada@example.org", "password": PASSWORD}
    post(f"{url}/v1/auth:register", person)
    await tried(page, "AuthService_Login", person)
    assert "ada@example.org" in await tried(page, "AuthService_GetCurrentUser")


async def test_an_answer_streams_into_the_page(url: str, page: Page) -> None:
    await page.run(f"document.querySelector('#token').value = {sign_in(url)!r}")
    assert (await tried(page, "ConversationService_CreateConversation", {"title": "First"})).startswith("200")
    shown = await tried(page, "ChatService_SendMessage", {"content": "Hello"})
    assert "1 started {" in shown
    assert " completed {" in shown
    assert shown.endswith("end of the stream\n")


async def test_the_page_may_run_nothing_that_does_not_stand_in_it(page: Page) -> None:
    refused = "new Promise(done => addEventListener('securitypolicyviolation', event => done(event.blockedURI)))"
    script = "Object.assign(document.createElement('script'), {textContent: '1'})"
    await page.run(f"void (window.refused = {refused}); document.body.append({script})")
    assert await page.run("window.refused") == "inline"
    page.complaints.clear()
