"""./bin/dev chat and ./bin/dev token as a person and as a script use them."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from chatback.v1 import auth_service_pb2, conversation_service_pb2
from tests.e2e.caller import PASSWORD, Client, Person
from tests.e2e.service import ROOT, Service
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer, refusal

SECONDS = 30
WHO = auth_service_pb2.GetCurrentUserRequest()
# Makes the terminal it is started on the one whose Ctrl-C it hears, as a shell does.
ON_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
)


def environment(service: Service, **settings: object) -> dict[str, str]:
    host, _, port = service.target.rpartition(":")
    ours = {
        "environment": "development",
        "data_dir": service.data_dir,
        "grpc_host": host,
        "grpc_port": port,
        **settings,
    }
    variables = {f"CHATBACK_{name.upper()}": str(value) for name, value in ours.items()}
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}", "TERM": "xterm", **variables}


def command(name: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "entrypoints.cli", name, *arguments]


def as_person(person: Person) -> list[str]:
    return ["--email", person.user.email, "--password", PASSWORD]


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


async def piped(service: Service, name: str, *arguments: str, said: str = "", **settings: object) -> Done:
    """Runs a command whose input, output and errors are pipes."""
    process = await asyncio.create_subprocess_exec(
        *command(name, arguments), env=environment(service, **settings), cwd=service.data_dir.parent,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(said.encode()), SECONDS)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


class Screen:
    """A person's end of a terminal."""

    def __init__(self, master: int, output: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self._output = output
        self._process = process
        self._unread = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def shows(self, text: str) -> None:
        """Waits until the text is written after what was waited for before."""
        async with asyncio.timeout(SECONDS):
            while text not in self._unread:
                chunk = await self._output.read(4096)
                assert chunk, f"it ended after {self._unread!r}"
                self._unread += chunk.decode(errors="replace")
        self._unread = self._unread.partition(text)[2]

    async def ends(self) -> int:
        """Waits for the end and returns the exit status."""
        return await asyncio.wait_for(self._process.wait(), SECONDS)


@asynccontextmanager
async def chat_on_a_terminal(service: Service, *arguments: str) -> AsyncIterator[Screen]:
    """Starts the chat on a terminal of its own and waits for the first prompt."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ON_A_TERMINAL, *command("chat", arguments), env=environment(service),
        cwd=service.data_dir.parent, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    output = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(master, "rb", buffering=0)
    )
    screen = Screen(master, output, process)
    try:
        await screen.shows("\n> ")
        yield screen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        transport.close()


async def test_a_piped_question_gets_the_answer_alone_on_standard_output(
    service: Service, endpoint: OpenAIEndpoint
) -> None:
    done = await piped(service, "chat", said="Hi there\n")
    assert (done.code, done.out) == (0, "Hello world\n")
    assert done.err.startswith("model-1 · 3 tokens in, 2 out · ")


async def test_each_piped_line_is_a_question_of_the_same_conversation(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    endpoint.script(answer("one"), answer("two"))
    done = await piped(service, "chat", *as_person(me), said="first\n\nsecond\n")
    assert (done.code, done.out) == (0, "one\ntwo\n")
    assert [message["content"] for message in endpoint.requests[1].body["messages"]][-3:] == ["first", "one", "second"]


async def test_a_conversation_has_its_first_line_as_title(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    await piped(service, "chat", *as_person(me), said=f"{'long ' * 20}\nmore\n")
    listed = await me.conversations.ListConversations(conversation_service_pb2.ListConversationsRequest())
    assert [conversation.title for conversation in listed.conversations] == ["long " * 12]


async def test_an_answer_cannot_steer_the_terminal(service: Service, endpoint: OpenAIEndpoint) -> None:
    endpoint.script(answer("\x1b]0;title\x07a\x9b2J[bold]b\tc\n"))
    assert (await piped(service, "chat", said="Hi\n")).out == "]0;titlea2J[bold]b\tc\n"


async def test_a_failed_answer_ends_a_piped_chat_with_its_reason(service: Service, endpoint: OpenAIEndpoint) -> None:
    endpoint.script(refusal(401))
    done = await piped(service, "chat", said="Hi\nnever asked\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("chatback: the answer failed: ")
    assert done.err.endswith("(MODEL_KEY_REFUSED)\n")


async def test_list_and_open_show_what_was_said_before(service: Service, endpoint: OpenAIEndpoint, me: Person) -> None:
    await piped(service, "chat", *as_person(me), said="Hi\n")
    done = await piped(service, "chat", *as_person(me), said="/list\n/open 1\n")
    assert done.out.splitlines()[0].endswith("  Hi")
    assert done.out.splitlines()[1:] == ["> Hi", "Hello world"]


async def test_a_conversation_goes_on_that_is_named_by_the_beginning_of_its_id(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    conversation = await me.converse("here")
    await piped(service, "chat", *as_person(me), "--conversation", conversation.conversation_id[:13], said="Hi\n")
    assert [message.content for message in await me.messages(conversation.conversation_id)] == ["Hi", "Hello world"]


async def test_the_last_answer_is_made_anew(service: Service, endpoint: OpenAIEndpoint, me: Person) -> None:
    endpoint.script(answer("one"), answer("two"))
    done = await piped(service, "chat", *as_person(me), said="Hi\n/regenerate\n")
    assert (done.code, done.out) == (0, "one\ntwo\n")
    assert [message["content"] for message in endpoint.requests[1].body["messages"]] == ["Hi"]
    done = await piped(service, "chat", *as_person(me), said="/open 1\n/regenerate\n")
    assert done.out == "> Hi\ntwo\ntwo\n"


async def test_where_no_answer_is_none_is_made_anew(service: Service, endpoint: OpenAIEndpoint) -> None:
    done = await piped(service, "chat", said="/regenerate\n")
    assert (done.code, done.err) == (1, "chatback: there is no answer yet that could be made anew\n")


async def test_an_unknown_command_is_not_sent_to_the_model(service: Service, endpoint: OpenAIEndpoint) -> None:
    done = await piped(service, "chat", said="/nothing\n")
    assert (done.code, endpoint.requests) == (1, [])
    assert "/help" in done.err


async def test_token_prints_what_signs_calls(service: Service, channel: grpc.aio.Channel) -> None:
    done = await piped(service, "token")
    assert done.code == 0
    assert await Client(channel, done.out.strip()).auth.GetCurrentUser(WHO)


async def test_a_wrong_password_is_one_line(service: Service, me: Person) -> None:
    done = await piped(service, "token", "--email", me.user.email, "--password", "wrong")
    assert (done.code, done.out) == (1, "")
    assert done.err == "chatback: the service does not accept this e-mail with this password\n"


async def test_where_no_service_is_one_line_says_how_to_start_it(service: Service) -> None:
    done = await piped(service, "chat", grpc_port=1, said="Hi\n")
    assert done.code == 1
    assert done.err == "chatback: nothing answers on 127.0.0.1:1; start it with ./bin/dev api\n"


async def test_where_no_operator_is_one_line_says_what_to_do(service: Service, tmp_path: Path) -> None:
    done = await piped(service, "chat", data_dir=tmp_path, said="Hi\n")
    assert done.code == 1
    assert done.err == (
        f"chatback: {tmp_path}/operator.json is not there: ./bin/dev api makes it; or name a user with --email\n"
    )


async def test_ctrl_c_cancels_the_answer_and_the_chat_goes_on(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()), answer("Again"))
    async with chat_on_a_terminal(service, *as_person(me)) as screen:
        screen.type("Hi\r")
        await screen.shows("Hello")
        screen.type("\x03")
        await screen.shows("cancelled after")
        await screen.shows("\n> ")
        screen.type("Hi again\r")
        await screen.shows("Again")
        await screen.shows("\n> ")
        screen.type("/quit\r")
        assert await screen.ends() == 0
    listed = await me.conversations.ListConversations(conversation_service_pb2.ListConversationsRequest())
    messages = await me.messages(listed.conversations[0].conversation_id)
    assert [message.content for message in messages] == ["Hi", "Hello", "Hi again", "Again"]


@pytest.mark.parametrize("key", ["\x03", "\x04"])
async def test_ctrl_c_and_ctrl_d_at_the_prompt_leave(service: Service, me: Person, key: str) -> None:
    async with chat_on_a_terminal(service, *as_person(me)) as screen:
        screen.type(key)
        assert await screen.ends() == 0


async def test_a_wrong_command_does_not_end_the_chat_on_a_terminal(service: Service, me: Person) -> None:
    async with chat_on_a_terminal(service, *as_person(me)) as screen:
        screen.type("/nothing\r")
        await screen.shows("there is no /nothing")
        await screen.shows("\n> ")
