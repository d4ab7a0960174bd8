"""What every chat model holds to, the scripted fake too."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from adapters.extractive.chat_model import ExtractiveChatModel
from adapters.openai.chat_model import OpenAIChatModel
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from domain.conversation import MessageRole, Usage
from domain.errors import ModelStreamBroken
from domain.prompt import Turn
from domain.run import FinishReason
from tests.fakes.chat_model import FINISH, ScriptedChatModel
from tests.fakes.openai_endpoint import End, OpenAIEndpoint, answer, unfinished

REQUEST = ChatRequest("some-model", [Turn(MessageRole.USER, "Hello?")])


@dataclass(frozen=True)
class Stage:
    """A model, and the ways to have it answer `one two three`, break off after `one`, or pause after `one`."""

    model: ChatModel
    answers: Callable[[], None]
    breaks_off: Callable[[], None]
    pauses: Callable[[asyncio.Event], None]
    was_closed: Callable[[], asyncio.Event]


class ChatModelContract:
    async def test_an_answer_is_pieces_of_text_and_then_one_finish(self, model: ChatModel) -> None:
        *pieces, last = [piece async for piece in model.stream(REQUEST)]
        assert pieces
        assert all(isinstance(piece, str) and piece for piece in pieces)
        assert isinstance(last, Finish)

    async def test_answers_made_at_once_do_not_mix(self, model: ChatModel) -> None:
        whole = await spoken(model)
        assert await asyncio.gather(*(spoken(model) for _ in range(20))) == [whole] * 20

    async def test_a_stream_can_be_closed_midway_and_the_model_used_again(self, model: ChatModel) -> None:
        async with aclosing(model.stream(REQUEST)) as pieces:
            await anext(pieces)
        assert await spoken(model)

    async def test_a_stream_that_was_never_read_can_be_closed(self, model: ChatModel) -> None:
        await model.stream(REQUEST).aclose()


class StagedContract(ChatModelContract):
    @pytest.fixture
    def model(self, stage: Stage) -> ChatModel:
        return stage.model

    async def test_no_text_is_lost_and_the_finish_carries_reason_and_cost(self, stage: Stage) -> None:
        stage.answers()
        *pieces, last = [piece async for piece in stage.model.stream(REQUEST)]
        assert "".join(map(str, pieces)) == "one two three"
        assert last == Finish(FinishReason.STOP, Usage(3, 2))

    async def test_a_stream_without_the_models_last_word_is_broken_after_its_text(self, stage: Stage) -> None:
        stage.breaks_off()
        pieces = stage.model.stream(REQUEST)
        assert await anext(pieces) == "one"
        with pytest.raises(ModelStreamBroken):
            await anext(pieces)

    async def test_closing_a_stream_stops_the_model(self, stage: Stage) -> None:
        stage.pauses(asyncio.Event())
        async with aclosing(stage.model.stream(REQUEST)) as pieces:
            assert await anext(pieces) == "one"
        async with asyncio.timeout(0.1):
            await stage.was_closed().wait()

    async def test_a_cancelled_reader_stops_the_model(self, stage: Stage) -> None:
        stage.pauses(asyncio.Event())
        seen = asyncio.Event()
        reader = asyncio.create_task(read_all(stage.model, seen))
        await seen.wait()
        reader.cancel()
        async with asyncio.timeout(0.1):
            await stage.was_closed().wait()

    async def test_a_paused_model_goes_on_where_it_was(self, stage: Stage) -> None:
        go_on = asyncio.Event()
        stage.pauses(go_on)
        pieces = stage.model.stream(REQUEST)
        assert await anext(pieces) == "one"
        go_on.set()
        assert [piece async for piece in pieces] == [" two", Finish(FinishReason.STOP, Usage(3, 2))]


class TestExtractiveChatModel(ChatModelContract):
    @pytest.fixture
    def model(self) -> ChatModel:
        return ExtractiveChatModel()


class TestScriptedChatModel(StagedContract):
    @pytest.fixture
    def stage(self) -> Stage:
        model = ScriptedChatModel()
        return Stage(
            model,
            answers=lambda: model.script(("one", " two", " three", FINISH)),
            breaks_off=lambda: model.script(("one",)),
            pauses=lambda event: model.script(("one", event, " two", FINISH)),
            was_closed=lambda: model.closed_early,
        )


class TestOpenAIChatModel(StagedContract):
    @pytest.fixture
    async def stage(self) -> AsyncIterator[Stage]:
        async with OpenAIEndpoint() as endpoint:
            model = OpenAIChatModel(api_key=None, base_url=endpoint.base_url)
            yield Stage(
                model,
                answers=lambda: endpoint.script(answer("one", " two", " three")),
                breaks_off=lambda: endpoint.script(unfinished("one", end=End.WHOLE)),
                pauses=lambda event: endpoint.script(answer("one", event, " two")),
                was_closed=lambda: endpoint.requests[-1].disconnected,
            )
            await model.close()


async def spoken(model: ChatModel) -> str:
    return "".join([piece async for piece in model.stream(REQUEST) if isinstance(piece, str)])


async def read_all(model: ChatModel, seen: asyncio.Event) -> None:
    async for _ in model.stream(REQUEST):
        seen.set()
