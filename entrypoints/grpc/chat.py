"""ChatService over gRPC."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from application.chat import Chat
from chatback.v1 import chat_service_pb2 as pb
from chatback.v1 import chat_service_pb2_grpc
from domain.bounds import identifier, number
from entrypoints.grpc.mapping import question, regeneration, run_to_proto, with_event
from entrypoints.grpc.pipeline import Context, current_caller


class ChatServicer(chat_service_pb2_grpc.ChatServiceServicer):
    """Runs, and the streams that show them."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def SendMessage(
        self, request: pb.SendMessageRequest, context: Context
    ) -> AsyncIterator[pb.SendMessageResponse]:
        async with aclosing(await self._chat.send(current_caller(), question(request))) as events:
            async for event in events:
                yield with_event(pb.SendMessageResponse(), event)

    async def RegenerateMessage(
        self, request: pb.RegenerateMessageRequest, context: Context
    ) -> AsyncIterator[pb.RegenerateMessageResponse]:
        async with aclosing(await self._chat.regenerate(current_caller(), regeneration(request))) as events:
            async for event in events:
                yield with_event(pb.RegenerateMessageResponse(), event)

    async def StreamRun(self, request: pb.StreamRunRequest, context: Context) -> AsyncIterator[pb.StreamRunResponse]:
        run_id = identifier("run_id", request.run_id)
        after_seq = number("after_seq", request.after_seq, at_least=0, at_most=2**31 - 1)
        async with aclosing(await self._chat.stream(current_caller(), run_id, after_seq)) as events:
            async for event in events:
                yield with_event(pb.StreamRunResponse(), event)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        run = await self._chat.run(current_caller(), identifier("run_id", request.run_id))
        return pb.GetRunResponse(run=run_to_proto(run))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        run = await self._chat.cancel(current_caller(), identifier("run_id", request.run_id))
        return pb.CancelRunResponse(run=run_to_proto(run))
