"""What grpc.aio can do at most: a server that answers from memory what the service would look up, check and store.

    python -m bench.echo PORT TOKENS

It knows just the calls that bench.load makes; a streamed answer is one message per token.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import grpc
import uvloop
from google.protobuf.message import Message as Proto

from chatback.v1.auth_service_pb2 import LoginRequest, LoginResponse, RegisterRequest, RegisterResponse
from chatback.v1.chat_service_pb2 import SendMessageRequest, SendMessageResponse
from chatback.v1.conversation_pb2 import Conversation, Message
from chatback.v1.conversation_service_pb2 import (
    CreateConversationRequest,
    CreateConversationResponse,
    GetConversationRequest,
    GetConversationResponse,
)
from chatback.v1.run_pb2 import RunCompleted, RunEvent, RunStarted, TextDelta
from chatback.v1.user_pb2 import Tokens

ID = str(UUID(int=7))
CONVERSATION = Conversation(conversation_id=ID, title="Measured", current_leaf_message_id=ID)
CONVERSATION.create_time.GetCurrentTime()
CONVERSATION.update_time.GetCurrentTime()


def events(tokens: int) -> list[SendMessageResponse]:
    """Returns a whole run."""
    texts = [f" tok{i}" for i in range(tokens)]
    bodies = [
        RunEvent(started=RunStarted(conversation_id=ID, user_message_id=ID, message_id=ID, model="bench")),
        *(RunEvent(text_delta=TextDelta(text=text)) for text in texts),
        RunEvent(completed=RunCompleted(message=Message(message_id=ID, content="".join(texts)))),
    ]
    for seq, body in enumerate(bodies, start=1):
        body.run_id, body.seq, body.attempt = ID, seq, 1
        body.create_time.CopyFrom(CONVERSATION.create_time)
    return [SendMessageResponse(event=body) for body in bodies]


def unary(request: type[Proto], response: Proto) -> Any:
    """Returns a handler that gives everybody the same response."""

    async def give(_: Proto, __: object) -> Proto:
        return response

    behaviour: Callable[..., Awaitable[Proto]] = give
    return grpc.unary_unary_rpc_method_handler(behaviour, request.FromString, type(response).SerializeToString)


def streaming(request: type[Proto], responses: list[SendMessageResponse]) -> Any:
    """Returns a handler that gives everybody the same stream."""

    async def give(_: Proto, __: object) -> AsyncIterator[Proto]:
        for response in responses:
            yield response

    return grpc.unary_stream_rpc_method_handler(give, request.FromString, SendMessageResponse.SerializeToString)


def services(tokens: int) -> dict[str, dict[str, Any]]:
    """Returns the handlers by service and method."""
    made = CreateConversationResponse(conversation=CONVERSATION)
    found = GetConversationResponse(conversation=CONVERSATION)
    return {
        "chatback.v1.AuthService": {
            "Register": unary(RegisterRequest, RegisterResponse()),
            "Login": unary(LoginRequest, LoginResponse(tokens=Tokens(access_token=ID))),
        },
        "chatback.v1.ConversationService": {
            "CreateConversation": unary(CreateConversationRequest, made),
            "GetConversation": unary(GetConversationRequest, found),
        },
        "chatback.v1.ChatService": {"SendMessage": streaming(SendMessageRequest, events(tokens))},
    }


async def serve(port: int, tokens: int) -> None:
    """Serves for ever."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services(tokens).items())
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
