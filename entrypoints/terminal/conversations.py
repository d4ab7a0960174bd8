"""The user's conversations, as the commands of the chat name them."""

import re
import uuid
from collections import deque
from collections.abc import Sequence

from chatback.client import ChatBack
from chatback.v1 import conversation_pb2
from chatback.v1 import conversation_service_pb2 as pb
from entrypoints.terminal.failures import TerminalError

LISTED = 20
SEARCHED = 100
REMEMBERED = 12
TITLE_CHARACTERS = 60
_NUMBER = re.compile(r"[1-9]\d{0,2}")  # ids begin with 0
_ID = re.compile(r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}")


class Conversations:
    """Makes, lists and finds them. All methods raise ChatBackError."""

    def __init__(self, service: ChatBack) -> None:
        self._service = service
        self._listed: Sequence[conversation_pb2.Conversation] = ()

    async def create(self, first_line: str) -> str:
        """Makes a conversation with the line as its title, cut to 60 characters, and returns its id."""
        title = " ".join(first_line.split())[:TITLE_CHARACTERS]
        request = pb.CreateConversationRequest(title=title, request_id=str(uuid.uuid4()))
        made = await self._service.conversations.CreateConversation(request)
        return made.conversation.conversation_id

    async def newest(self) -> Sequence[conversation_pb2.Conversation]:
        """Returns the conversations that changed last, up to 20; from then on find() goes by their numbers."""
        self._listed = await self._page(LISTED)
        return self._listed

    async def find(self, name: str) -> conversation_pb2.Conversation:
        """Returns the conversation of an id, of its beginning, or of a number in the newest list that was returned.

        Raises TerminalError where there is none, or more than one.
        """
        name = name.lower()
        if _NUMBER.fullmatch(name):
            return self._of_number(int(name), self._listed or await self.newest())
        if _ID.fullmatch(name):
            request = pb.GetConversationRequest(conversation_id=name)
            return (await self._service.conversations.GetConversation(request)).conversation
        return self._of_prefix(name, await self._page(SEARCHED))

    async def last_answer(self, conversation_id: str) -> str:
        """Returns the id of the message that ends the branch in use, which is an answer; empty where there is none."""
        if not conversation_id:
            return ""
        return (await self.find(conversation_id)).current_leaf_message_id

    async def last_messages(self, conversation: conversation_pb2.Conversation) -> Sequence[conversation_pb2.Message]:
        """Returns the newest messages of the branch in use, up to 12, oldest first."""
        messages: deque[conversation_pb2.Message] = deque(maxlen=REMEMBERED)
        request = pb.ListMessagesRequest(
            conversation_id=conversation.conversation_id,
            page_size=100,
            leaf_message_id=conversation.current_leaf_message_id,
        )
        while True:
            page = await self._service.conversations.ListMessages(request)
            messages.extend(page.messages)
            if not page.next_page_token:
                return messages
            request.page_token = page.next_page_token

    async def _page(self, size: int) -> Sequence[conversation_pb2.Conversation]:
        request = pb.ListConversationsRequest(page_size=size)
        return (await self._service.conversations.ListConversations(request)).conversations

    @staticmethod
    def _of_number(number: int, listed: Sequence[conversation_pb2.Conversation]) -> conversation_pb2.Conversation:
        if number > len(listed):
            raise TerminalError(f"the list ends with {len(listed)}; /list shows it")
        return listed[number - 1]

    @staticmethod
    def _of_prefix(prefix: str, searched: Sequence[conversation_pb2.Conversation]) -> conversation_pb2.Conversation:
        found = [conversation for conversation in searched if conversation.conversation_id.startswith(prefix)]
        if not prefix or len(found) > 1:
            raise TerminalError("name one conversation: by its number in /list, or by more of its id")
        if not found:
            raise TerminalError(
                f"none of the newest {SEARCHED} conversations has an id that begins so; /list shows them"
            )
        return found[0]
