"""The Python client of ChatBack: signs in, keeps signed in, and follows answers through broken connections.

    async with ChatBack("127.0.0.1:50051", credentials=Password("ada@example.org", "a long passphrase")) as chat:
        made = await chat.conversations.CreateConversation(CreateConversationRequest(title="First"))
        async for event in chat.send(made.conversation.conversation_id, "Hello"):
            print(event.text_delta.text, end="", flush=True)

Requests and responses are the generated messages of `chatback.v1`; docs/clients.md tells the rest.
"""

from chatback.client.answer import Answer
from chatback.client.chat import ChatBack
from chatback.client.credentials import ApiKey, Credentials, Password, TokenProvider
from chatback.client.errors import AnswerError, ChatBackError

__all__ = ["Answer", "AnswerError", "ApiKey", "ChatBack", "ChatBackError", "Credentials", "Password", "TokenProvider"]
