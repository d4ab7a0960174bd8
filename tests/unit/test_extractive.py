"""The model that answers where none is configured."""

from adapters.extractive.chat_model import ExtractiveChatModel
from application.ports.chat_model import ChatRequest, Finish
from domain.conversation import MessageRole, Usage
from domain.prompt import Turn
from domain.run import FinishReason

REQUEST = ChatRequest("extractive", [Turn(MessageRole.USER, "What is the capital of France?")])


async def test_the_answer_names_the_settings_that_bring_a_language_model() -> None:
    text = "".join([piece async for piece in ExtractiveChatModel().stream(REQUEST) if isinstance(piece, str)])
    assert "No language model is configured" in text
    assert "CHATBACK_OPENAI_API_KEY" in text
    assert "CHATBACK_OPENAI_BASE_URL" in text


async def test_the_answer_comes_in_several_pieces_and_costs_nothing() -> None:
    *pieces, last = [piece async for piece in ExtractiveChatModel().stream(REQUEST)]
    assert len(pieces) > 1
    assert last == Finish(FinishReason.STOP, Usage())
