"""The client."""

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from chatback.client.answer import Answer
from chatback.client.calls import StreamCalls, UnaryCalls
from chatback.client.connection import Option, Tls, connect
from chatback.client.credentials import Credentials
from chatback.client.session import Session
from chatback.client.tokens import token_source
from chatback.v1 import conversation_pb2, user_pb2
from chatback.v1.auth_service_pb2_grpc import AuthServiceStub
from chatback.v1.chat_service_pb2 import RegenerateMessageRequest, SendMessageRequest, SendOptions
from chatback.v1.chat_service_pb2_grpc import ChatServiceStub
from chatback.v1.conversation_service_pb2_grpc import ConversationServiceStub
from chatback.v1.model_service_pb2_grpc import ModelServiceStub


class ChatBack:
    """One service, on behalf of one user. Make it in a running event loop, and one for the whole program.

    `auth`, `conversations`, `models` and `runs` are the generated stubs, over a channel that adds to every call:

    - the access token, renewed before it expires, or once when the service refuses it;
    - a deadline, `call_seconds` unless the call names its own `timeout`, over all its attempts;
    - another attempt, with jittered pauses, while the service can't be reached: only for methods that the contract
      calls idempotent and for requests with a request_id, which is added where it was left empty; and for any method,
      after the time that the service asks for, where it did nothing because it had too much to do.

    Whatever fails raises ChatBackError. More stubs can be made of `channel`.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        credentials: Credentials | None = None,
        tls: Tls = False,
        call_seconds: float = 10,
        patience_seconds: float = 60,
        options: Sequence[Option] = (),
    ) -> None:
        """Connects to nothing yet: the first call does, and signs in.

        - `target` is host:port, or any other name that gRPC knows to resolve, or the ip:port of each replica. Calls
          take turns over all addresses behind it that can be reached; an Answer whose replica goes resumes on another.
        - `tls` is True to trust the usual authorities, or what grpc.ssl_channel_credentials() returns. Without it,
          tokens travel unencrypted.
        - `patience_seconds` is how long an answer whose stream broke is tried for without a new event.
        - `options` are further options of the gRPC channel, which may replace the client's own.
        """
        unary, streams = UnaryCalls(call_seconds), StreamCalls()
        self.channel = connect(target, tls=tls, options=options, interceptors=(unary, streams))
        self.auth = AuthServiceStub(self.channel)
        self.conversations = ConversationServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        self.runs = ChatServiceStub(self.channel)
        self._source = unary.tokens = streams.tokens = token_source(credentials, self.auth)
        self._patience_seconds = patience_seconds

    @property
    def tokens(self) -> user_pb2.Tokens | None:
        """The newest tokens of the session, for a program that keeps them; None where there is no session."""
        return self._source.tokens if isinstance(self._source, Session) else None

    def send(
        self,
        conversation_id: str,
        content: str,
        *,
        request_id: str = "",
        parent_message_id: str = "",
        edited_message_id: str = "",
        options: SendOptions | None = None,
    ) -> Answer:
        """Asks, and returns the events of the answer. Nothing is sent before the first is awaited.

        - The question ends the conversation, or follows `parent_message_id`, or says `edited_message_id` in other
          words; the last two begin a branch.
        - A `request_id` of one's own makes it safe to repeat over restarts of the program; without it, it is safe for
          as long as the Answer lives.
        """
        question = SendMessageRequest(
            conversation_id=conversation_id,
            content=content,
            request_id=request_id or str(uuid.uuid4()),
            parent_message_id=parent_message_id,
            edited_message_id=edited_message_id,
            options=options,
        )
        return Answer(self.runs, ask=lambda: self.runs.SendMessage(question), patience_seconds=self._patience_seconds)

    def regenerate(self, message_id: str, *, request_id: str = "", options: SendOptions | None = None) -> Answer:
        """Asks for another answer beside the one in a message, and returns its events, as `send` does."""
        wish = RegenerateMessageRequest(
            message_id=message_id, request_id=request_id or str(uuid.uuid4()), options=options
        )
        return Answer(self.runs, ask=lambda: self.runs.RegenerateMessage(wish), patience_seconds=self._patience_seconds)

    def watch(self, run_id: str, after_seq: int = 0) -> Answer:
        """Returns the events of a run after a seq, those that are past and those that come."""
        return Answer(self.runs, run_id=run_id, after_seq=after_seq, patience_seconds=self._patience_seconds)

    async def ask(
        self,
        conversation_id: str,
        content: str,
        *,
        request_id: str = "",
        parent_message_id: str = "",
        edited_message_id: str = "",
        options: SendOptions | None = None,
    ) -> conversation_pb2.Message:
        """Asks, waits for the end of the answer, and returns it. Raises AnswerError if it failed or was cancelled."""
        answer = self.send(
            conversation_id,
            content,
            request_id=request_id,
            parent_message_id=parent_message_id,
            edited_message_id=edited_message_id,
            options=options,
        )
        return await answer.message()

    async def close(self) -> None:
        """Ends the session that a Password began, if the service can be reached just now, and closes the channel."""
        await self._source.close()
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
