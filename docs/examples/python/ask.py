"""Asks ChatBack one question and prints the answer while it is written, also through a broken connection.

Environment: CHATBACK_TARGET (default 127.0.0.1:50051), CHATBACK_EMAIL, CHATBACK_PASSWORD.
"""

import asyncio
import os
import sys

from chatback.client import ChatBack, ChatBackError, Password
from chatback.v1.conversation_service_pb2 import CreateConversationRequest
from chatback.v1.run_pb2 import FinishReason, RunEvent


async def ask(question: str) -> None:
    """Asks in a new conversation."""
    known = Password(os.environ["CHATBACK_EMAIL"], os.environ["CHATBACK_PASSWORD"])
    async with ChatBack(os.environ.get("CHATBACK_TARGET", "127.0.0.1:50051"), credentials=known) as chat:
        made = await chat.conversations.CreateConversation(CreateConversationRequest(title="From Python"))
        async for event in chat.send(made.conversation.conversation_id, question):
            show(event)


def show(event: RunEvent) -> None:
    """Prints what there is to see of an event."""
    match event.WhichOneof("event"):
        case "text_delta":
            print(event.text_delta.text, end="", flush=True)
        case "attempt_reset":
            print("\n[the answer begins anew]")
        case "completed":
            print(f"\n[{event.seq} events, {FinishReason.Name(event.completed.finish_reason)}]")
        case "failed":
            print(f"\n[failed: {event.failed.message} ({event.failed.reason})]")
        case "cancelled":
            print("\n[cancelled]")


if __name__ == "__main__":
    try:
        asyncio.run(ask(" ".join(sys.argv[1:]) or "Hello"))
    except ChatBackError as error:
        sys.exit(str(error))
