"""ConversationService over gRPC."""

from application.conversations import Conversations
from chatback.v1 import conversation_service_pb2 as pb
from chatback.v1 import conversation_service_pb2_grpc
from domain.bounds import identifier, optional_identifier
from entrypoints.grpc.mapping import (
    conversation_change,
    conversation_draft,
    conversation_to_proto,
    digest,
    message_to_proto,
)
from entrypoints.grpc.pipeline import Context, current_caller


class ConversationServicer(conversation_service_pb2_grpc.ConversationServiceServicer):
    """The caller's conversations."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def CreateConversation(
        self, request: pb.CreateConversationRequest, context: Context
    ) -> pb.CreateConversationResponse:
        made = await self._conversations.create(current_caller(), conversation_draft(request), digest(request))
        return pb.CreateConversationResponse(conversation=conversation_to_proto(made))

    async def GetConversation(self, request: pb.GetConversationRequest, context: Context) -> pb.GetConversationResponse:
        conversation_id = identifier("conversation_id", request.conversation_id)
        found = await self._conversations.get(current_caller(), conversation_id)
        return pb.GetConversationResponse(conversation=conversation_to_proto(found))

    async def UpdateConversation(
        self, request: pb.UpdateConversationRequest, context: Context
    ) -> pb.UpdateConversationResponse:
        conversation_id = identifier("conversation_id", request.conversation_id)
        updated = await self._conversations.update(current_caller(), conversation_id, conversation_change(request))
        return pb.UpdateConversationResponse(conversation=conversation_to_proto(updated))

    async def DeleteConversation(
        self, request: pb.DeleteConversationRequest, context: Context
    ) -> pb.DeleteConversationResponse:
        await self._conversations.delete(current_caller(), identifier("conversation_id", request.conversation_id))
        return pb.DeleteConversationResponse()

    async def ListConversations(
        self, request: pb.ListConversationsRequest, context: Context
    ) -> pb.ListConversationsResponse:
        found, token = await self._conversations.list(
            current_caller(), request.query, request.page_size, request.page_token
        )
        return pb.ListConversationsResponse(conversations=map(conversation_to_proto, found), next_page_token=token)

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        conversation_id = identifier("conversation_id", request.conversation_id)
        leaf = optional_identifier("leaf_message_id", request.leaf_message_id)
        found, token = await self._conversations.list_messages(
            current_caller(),
            conversation_id,
            leaf,
            request.page_size,
            request.page_token,
            all_branches=request.all_branches,
        )
        return pb.ListMessagesResponse(messages=map(message_to_proto, found), next_page_token=token)
