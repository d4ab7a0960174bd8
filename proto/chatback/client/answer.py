"""An answer that is watched to its end, whatever happens to the connection."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import grpc

from chatback.client.errors import AnswerError, ChatBackError
from chatback.client.pauses import Pauses
from chatback.v1 import chat_service_pb2 as pb
from chatback.v1 import conversation_pb2, run_pb2
from chatback.v1.chat_service_pb2_grpc import ChatServiceStub

LAST_EVENTS = frozenset({"completed", "failed", "cancelled"})


class HasEvent(Protocol):
    """A response of any stream of events."""

    @property
    def event(self) -> run_pb2.RunEvent:
        """What happened next in the run."""


Stream: TypeAlias = "grpc.aio.UnaryStreamCall[pb.SendMessageRequest, pb.SendMessageResponse] | grpc.aio.UnaryStreamCall[pb.StreamRunRequest, pb.StreamRunResponse]"
