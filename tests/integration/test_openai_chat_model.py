"""The adapter against a real HTTP server that plays every way an endpoint can go wrong."""

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter

import aiohttp
import pytest

from adapters.openai.chat_model import OpenAIChatModel
from application.ports.chat_model import ChatRequest, Finish
from domain.conversation import MessageRole, Usage
from domain.errors import (
    ModelError,
    ModelKeyRefused,
    ModelRateLimited,
    ModelRefused,
    ModelStalled,
    ModelStreamBroken,
    ModelUnavailable,
    ModelUnknown,
)
from domain.prompt import Turn
from domain.run import FinishReason
from tests.fakes.openai_endpoint import (
    DONE,
    End,
    OpenAIEndpoint,
    Script,
    answer,
    closed_without_response,
    event,
    refusal,
    unfinished,
    usage,
)

TURNS = [Turn(MessageRole.USER, "Hi"), Turn(MessageRole.ASSISTANT, "Hello"), Turn(MessageRole.USER, "How are you?")]
REQUEST = ChatRequest("some-model", TURNS)
FIRST_TOKEN, GAP = 0.5, 0.2


@pytest.fixture
async def endpoint() -> AsyncIterator[OpenAIEndpoint]:
    async with OpenAIEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def model(endpoint: OpenAIEndpoint) -> AsyncIterator[OpenAIChatModel]:
    model = OpenAIChatModel(api_key="sk-test", base_url=endpoint.base_url)
    yield model
    await model.close()


@pytest.fixture
async def hasty(endpoint: OpenAIEndpoint) -> AsyncIterator[OpenAIChatModel]:
    """A model with little patience."""
    model = OpenAIChatModel(
        api_key="sk-test",
        base_url=endpoint.base_url,
        connect_seconds=0.3,
        first_token_seconds=FIRST_TOKEN,
        gap_seconds=GAP,
    )
    yield model
    await model.close()


async def pieces_of(model: OpenAIChatModel, request: ChatRequest = REQUEST) -> list[str | Finish]:
    return [piece async for piece in model.stream(request)]


async def text_of(model: OpenAIChatModel) -> str:
    return "".join([piece for piece in await pieces_of(model) if isinstance(piece, str)])


async def failure_of(model: OpenAIChatModel) -> tuple[str, ModelError]:
    """Returns the text before the failure, and the failure."""
    text = ""
    try:
        async for piece in model.stream(REQUEST):
            assert isinstance(piece, str)
            text += piece
    except ModelError as error:
        return text, error
    pytest.fail("the stream ended without a failure")


async def kept_alive(model: OpenAIChatModel) -> None:
    """Returns once a connection waits for its next use."""
    while not (model._session and model._session.connector and model._session.connector._conns):  # noqa: ASYNC110
        await asyncio.sleep(0)  # aiohttp has no event for it


class TestRequest:
    async def test_it_carries_model_turns_and_key_and_asks_for_a_stream_with_usage(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        await pieces_of(model)
        request = endpoint.requests[0]
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer sk-test"
        assert request.body == {
            "model": "some-model",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "How are you?"},
            ],
        }

    async def test_options_are_sent_only_if_chosen(self, endpoint: OpenAIEndpoint, model: OpenAIChatModel) -> None:
        await pieces_of(model, ChatRequest("some-model", TURNS, temperature=0.0, max_output_tokens=9))
        assert endpoint.requests[0].body["temperature"] == 0.0
        assert endpoint.requests[0].body["max_tokens"] == 9

    @pytest.mark.parametrize(
        ("base_url", "name"),
        [
            (None, "max_completion_tokens"),
            ("https://api.openai.com/v1/", "max_completion_tokens"),
            ("https://api.openai.com.example/v1", "max_tokens"),
            ("http://127.0.0.1:8080/v1", "max_tokens"),
        ],
    )
    def test_openai_itself_is_told_the_bound_under_its_newer_name(self, base_url: str | None, name: str) -> None:
        model = OpenAIChatModel(api_key="sk-test", base_url=base_url)
        assert json.loads(model._body(ChatRequest("some-model", TURNS, max_output_tokens=9)))[name] == 9

    async def test_a_server_without_keys_is_sent_none(self, endpoint: OpenAIEndpoint) -> None:
        model = OpenAIChatModel(api_key=None, base_url=endpoint.base_url + "/")
        await pieces_of(model)
        await model.close()
        assert "authorization" not in endpoint.requests[0].headers
        assert endpoint.requests[0].path == "/v1/chat/completions"

    async def test_proxies_of_the_environment_are_not_used(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert await text_of(model) == "Hello world"

    async def test_a_prompt_of_megabytes_is_sent_whole(self, endpoint: OpenAIEndpoint, model: OpenAIChatModel) -> None:
        text = "long " * 500_000
        await pieces_of(model, ChatRequest("some-model", [Turn(MessageRole.USER, text)]))
        assert endpoint.requests[0].body["messages"][0]["content"] == text


class TestAnswer:
    async def test_what_one_read_brings_is_one_piece(self, endpoint: OpenAIEndpoint, model: OpenAIChatModel) -> None:
        endpoint.script(Script([event("a") + event("b") + event("c", finish="stop") + DONE]))
        assert await pieces_of(model) == ["abc", Finish(FinishReason.STOP, Usage())]

    async def test_a_token_is_handed_on_before_the_next_one_comes(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        go_on = asyncio.Event()
        endpoint.script(answer("a", go_on, "b"))
        stream = model.stream(REQUEST)
        assert await anext(stream) == "a"
        go_on.set()
        assert await anext(stream) == "b"
        assert await anext(stream) == Finish(FinishReason.STOP, Usage(3, 2))
        await stream.aclose()

    @pytest.mark.parametrize(
        ("reason", "read"),
        [
            ("stop", FinishReason.STOP),
            ("length", FinishReason.LENGTH),
            ("content_filter", FinishReason.CONTENT_FILTER),
            ("tool_calls", FinishReason.STOP),
            ("function_call", FinishReason.STOP),
            ("eos", FinishReason.STOP),
        ],
    )
    async def test_each_reason_to_finish_has_its_meaning(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, reason: str, read: FinishReason
    ) -> None:
        endpoint.script(answer("a", finish=reason))
        assert (await pieces_of(model))[-1] == Finish(read, Usage(3, 2))

    async def test_usage_may_be_missing(self, endpoint: OpenAIEndpoint, model: OpenAIChatModel) -> None:
        endpoint.script(answer("a", tokens=None))
        assert (await pieces_of(model))[-1] == Finish(FinishReason.STOP, Usage())

    async def test_done_may_be_missing_where_the_finish_reason_is_not(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([event("a", finish="stop"), usage(3, 2)]))
        assert await pieces_of(model) == ["a", Finish(FinishReason.STOP, Usage(3, 2))]

    @pytest.mark.parametrize("end", [End.RESET, End.CUT, End.SILENT])
    async def test_an_answer_is_whole_by_its_finish_reason_whatever_comes_after(
        self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel, end: End
    ) -> None:
        endpoint.script(Script([event("a", finish="stop")], end=end))
        assert await pieces_of(hasty) == ["a", Finish(FinishReason.STOP, Usage())]

    async def test_the_finish_does_not_wait_for_the_response_to_end(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([event("a", finish="stop"), DONE], end=End.SILENT))
        began = perf_counter()
        assert await text_of(model) == "a"
        assert perf_counter() - began < 0.5

    async def test_nul_and_lone_surrogates_come_through_for_the_caller_to_repair(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(answer("a\x00b", "\ud800c"))
        assert await text_of(model) == "a\x00b\ud800c"

    async def test_an_endpoint_that_does_not_stream_is_read_too(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        body = {"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]}
        endpoint.script(Script([json.dumps(body).encode()], headers={"Content-Type": "application/json"}))
        assert await pieces_of(model) == ["whole", Finish(FinishReason.STOP, Usage())]

    async def test_the_next_answer_uses_the_same_connection(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(answer("a", delay=0.005))
        for _ in range(3):
            await pieces_of(model)
            await asyncio.wait_for(kept_alive(model), 1)
        assert {request.connection for request in endpoint.requests} == {1}


class TestRefusals:
    @pytest.mark.parametrize(
        ("script", "error"),
        [
            (refusal(401, code="invalid_api_key"), ModelKeyRefused),
            (refusal(403), ModelKeyRefused),
            (refusal(404), ModelUnknown),
            (refusal(400, code="model_not_found"), ModelUnknown),
            (refusal(403, code="model_not_found"), ModelUnknown),
            (refusal(400), ModelRefused),
            (refusal(422), ModelRefused),
            (refusal(429, code="insufficient_quota"), ModelRateLimited),
            (refusal(501), ModelUnavailable),
        ],
    )
    async def test_each_has_its_error_and_is_not_tried_again(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, script: Script, error: type[ModelError]
    ) -> None:
        endpoint.script(script)
        assert type((await failure_of(model))[1]) is error
        assert len(endpoint.requests) == 1

    async def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([], status=307, headers={"Location": "/v1/elsewhere"}), answer("Hello"))
        assert isinstance((await failure_of(model))[1], ModelRefused)
        assert len(endpoint.requests) == 1

    async def test_the_endpoints_words_and_the_key_stay_out_of_the_error(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(refusal(401, message="Incorrect API key provided: sk-test-1234"))
        error = (await failure_of(model))[1]
        assert "Incorrect" not in error.message
        assert "sk-test" not in str(error.__cause__)

    async def test_a_body_that_is_no_json_does_no_harm(self, endpoint: OpenAIEndpoint, model: OpenAIChatModel) -> None:
        endpoint.script(Script([b"<html>\xff no"], status=400, headers={"Content-Type": "text/html"}))
        assert isinstance((await failure_of(model))[1], ModelRefused)

    async def test_a_body_without_end_is_not_waited_for_long(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([b"x" * 100_000], status=400, end=End.SILENT))
        async with asyncio.timeout(1):
            assert isinstance((await failure_of(model))[1], ModelRefused)

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"error": {"code": "model_not_found"}}, ModelUnknown),
            ({"error": {"code": 401}}, ModelKeyRefused),
            ({"error": {"code": 400}}, ModelRefused),
            ({"error": {"type": "invalid_request_error"}}, ModelRefused),
            ({"error": "something"}, ModelUnavailable),
        ],
    )
    @pytest.mark.parametrize("as_event", [True, False])
    async def test_an_error_within_status_200_is_the_matching_one(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, body: object, error: type[ModelError], as_event: bool
    ) -> None:
        data = json.dumps(body).encode()
        endpoint.script(Script([b"data: " + data + b"\n\n" if as_event else data]))
        assert type((await failure_of(model))[1]) is error
        assert len(endpoint.requests) == 1


class TestRetries:
    @pytest.mark.parametrize(
        "script",
        [
            refusal(429, retry_after="0"),
            refusal(500, retry_after="0.05"),
            refusal(502),
            refusal(503),
            refusal(504),
            refusal(429, retry_after="Thu, 01 Jan 2026 00:00:00 GMT"),
            closed_without_response(),
            closed_without_response(End.CUT),
            unfinished(end=End.RESET),
            Script([event(error={"code": 503})]),
        ],
    )
    async def test_what_may_pass_is_tried_once_more(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, script: Script
    ) -> None:
        endpoint.script(script, answer("Hello"))
        assert await text_of(model) == "Hello"
        assert len(endpoint.requests) == 2

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            (refusal(429, retry_after="0"), ModelRateLimited),
            (refusal(503, retry_after="0"), ModelUnavailable),
            (closed_without_response(), ModelUnavailable),
        ],
    )
    async def test_a_second_failure_is_told(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, script: Script, error: type[ModelError]
    ) -> None:
        endpoint.script(script)
        assert type((await failure_of(model))[1]) is error
        assert len(endpoint.requests) == 2

    async def test_the_wait_that_the_endpoint_asks_for_is_kept(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(refusal(429, retry_after="0.4"), answer("Hello"))
        began = perf_counter()
        assert await text_of(model) == "Hello"
        assert perf_counter() - began > 0.38

    @pytest.mark.parametrize("retry_after", ["0.6", "3600"])
    async def test_a_wait_past_the_first_tokens_time_is_not_begun(
        self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel, retry_after: str
    ) -> None:
        endpoint.script(refusal(429, retry_after=retry_after))
        began = perf_counter()
        assert isinstance((await failure_of(hasty))[1], ModelRateLimited)
        assert perf_counter() - began < 0.3
        assert len(endpoint.requests) == 1

    async def test_nothing_is_tried_again_once_there_was_text(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([event("Hello"), event(error={"code": 503})]))
        text, error = await failure_of(model)
        assert (text, type(error)) == ("Hello", ModelStreamBroken)
        assert len(endpoint.requests) == 1

    async def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        model = OpenAIChatModel(api_key=None, base_url=f"http://127.0.0.1:{port}/v1")
        assert isinstance((await failure_of(model))[1], ModelUnavailable)
        await model.close()


class TestBreaks:
    @pytest.mark.parametrize("end", [End.WHOLE, End.CUT, End.RESET])
    async def test_a_stream_that_stops_without_a_finish_reason_is_broken(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, end: End
    ) -> None:
        go_on = asyncio.Event()
        endpoint.script(unfinished("Hello", go_on, end=end))
        stream = model.stream(REQUEST)
        assert await anext(stream) == "Hello"
        go_on.set()
        with pytest.raises(ModelStreamBroken):
            await anext(stream)
        assert len(endpoint.requests) == 1

    @pytest.mark.parametrize(
        ("last", "end"),
        [
            (DONE, End.SILENT),
            (b'data: {"choi\n\n', End.SILENT),
            (b"data: " + b"x" * 2_000_000, End.SILENT),
            (event(finish="error"), End.WHOLE),
        ],
    )
    async def test_what_is_no_finish_is_none(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, last: bytes, end: End
    ) -> None:
        endpoint.script(Script([event("Hello"), last], end=end))
        text, error = await failure_of(model)
        assert (text, type(error)) == ("Hello", ModelStreamBroken)

    async def test_an_empty_answer_without_a_finish_reason_is_broken(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([]))
        assert isinstance((await failure_of(model))[1], ModelStreamBroken)


class TestStalls:
    @pytest.mark.parametrize(
        "script",
        [
            Script([], end=End.SILENT, has_head=False),
            Script([], end=End.SILENT),
            Script([b": comment\n\n"] * 100, delay=0.05),
        ],
    )
    async def test_a_model_that_says_nothing_is_stalled_after_the_first_tokens_time(
        self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel, script: Script
    ) -> None:
        endpoint.script(script)
        began = perf_counter()
        error = (await failure_of(hasty))[1]
        assert FIRST_TOKEN - 0.02 < perf_counter() - began < FIRST_TOKEN + 0.2
        assert error.metadata == {"seconds": "0.5"}
        assert isinstance(error, ModelStalled)
        assert len(endpoint.requests) == 1

    async def test_a_model_that_falls_silent_is_stalled_after_the_gap(
        self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel
    ) -> None:
        endpoint.script(unfinished("Hello", end=End.SILENT))
        stream = hasty.stream(REQUEST)
        assert await anext(stream) == "Hello"
        began = perf_counter()
        with pytest.raises(ModelStalled, match=r"0\.2 seconds"):
            await anext(stream)
        assert GAP - 0.02 < perf_counter() - began < GAP + 0.15
        await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 0.1)

    async def test_an_answer_may_take_longer_than_any_of_its_gaps(
        self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel
    ) -> None:
        endpoint.script(answer(*"abcdefghij", delay=0.1))
        assert await text_of(hasty) == "abcdefghij"

    async def test_reasoning_is_a_sign_of_life(self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel) -> None:
        thought = event(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}}])
        endpoint.script(Script([thought] * 8 + [event("yes", finish="stop")], delay=0.1))
        assert await text_of(hasty) == "yes"

    async def test_a_slow_reader_is_no_stalled_model(self, endpoint: OpenAIEndpoint, hasty: OpenAIChatModel) -> None:
        go_on = asyncio.Event()
        endpoint.script(answer("a", go_on, "b"))
        stream = hasty.stream(REQUEST)
        assert await anext(stream) == "a"
        await asyncio.sleep(3 * GAP)  # the reader's own slowness is the subject
        asyncio.get_running_loop().call_later(GAP / 2, go_on.set)
        assert await anext(stream) == "b"
        await stream.aclose()

    async def test_a_host_that_takes_no_connection_is_unavailable_within_the_connect_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            model = OpenAIChatModel(
                api_key=None,
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1",
                connect_seconds=0.2,
                first_token_seconds=5,
            )
            began = perf_counter()
            assert isinstance((await failure_of(model))[1], ModelUnavailable)
            assert perf_counter() - began < 1.5
            await model.close()
            for filler in fillers:
                filler.close()


class TestClosing:
    @pytest.mark.parametrize(
        "script", [unfinished("Hello", end=End.SILENT), answer(*("word " * 1000).split(), delay=0.001)]
    )
    async def test_closing_the_stream_closes_the_socket_within_100_ms(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, script: Script
    ) -> None:
        endpoint.script(script)
        async with aclosing(model.stream(REQUEST)) as stream:
            await anext(stream)
        await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 0.1)

    @pytest.mark.parametrize("has_head", [True, False])
    async def test_cancelling_before_the_first_token_closes_the_socket(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel, has_head: bool
    ) -> None:
        endpoint.script(Script([], end=End.SILENT, has_head=has_head))
        reading = asyncio.create_task(text_of(model))
        await asyncio.wait_for(endpoint.received.wait(), 1)
        reading.cancel()
        await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 0.1)

    async def test_a_response_that_goes_on_after_its_answer_is_closed_soon(
        self, endpoint: OpenAIEndpoint, model: OpenAIChatModel
    ) -> None:
        endpoint.script(Script([event("a", finish="stop"), DONE], end=End.SILENT))
        await text_of(model)
        await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 2)

    async def test_closing_the_model_leaves_nothing_open(self, endpoint: OpenAIEndpoint) -> None:
        endpoint.script(Script([event("a", finish="stop"), DONE], end=End.SILENT), answer("a"))
        model = OpenAIChatModel(api_key=None, base_url=endpoint.base_url)
        await text_of(model)
        await text_of(model)
        await model.close()
        await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 0.1)
        assert not [it for it in gc.get_objects() if isinstance(it, aiohttp.ClientResponse) and not it.closed]
