"""Other kinds of clients than raw stubs: readers of server-sent events, and the project's own Python client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
from google.protobuf import json_format

from chatback.client import ChatBack
from chatback.v1.chat_service_pb2 import StreamRunResponse
from chatback.v1.run_pb2 import RunEvent
from tests.faults.history import History, Sight
from tests.faults.model import Question
from tests.faults.processes import Replica
from tests.faults.watchers import PATIENCE_SECONDS, Watcher


class SseWatcher(Watcher):
    """Follows a run over REST."""

    async def _visit(self, replica: Replica) -> None:
        headers = {"authorization": f"Bearer {self.token}", "last-event-id": str(self.seq)}
        silence = aiohttp.ClientTimeout(total=None, sock_connect=self.idle_seconds, sock_read=self.idle_seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=silence) as session,
                session.get(f"{replica.url}/v1/runs/{self.run_id}/events", headers=headers) as response,
            ):
                if response.status != 200:
                    self._failed(replica, await response.json())
                    return
                await self._read(replica, response)
        except TimeoutError:
            self._was_silent(replica)
        except (aiohttp.ClientError, ConnectionError):
            self._broke(replica, grpc.StatusCode.UNAVAILABLE, "connection")

    async def _read(self, replica: Replica, response: aiohttp.ClientResponse) -> None:
        async for kind, data in _frames(response):
            if kind == "error":
                self._failed(replica, data)
                return
            self._take(replica, json_format.ParseDict(data, StreamRunResponse()).event)
            if self.has_ended or self.random.random() < self.drops:
                return
        self._broke(replica, grpc.StatusCode.OK)

    def _failed(self, replica: Replica, answer: dict[str, Any]) -> None:
        error = answer["error"]
        info: dict[str, Any] = next((detail for detail in error.get("details", ()) if "reason" in detail), {})
        code = grpc.StatusCode[error["status"]]
        self._broke(replica, code, info.get("reason", ""), info.get("metadata"))


async def _frames(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    kind = ""
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


async def ask_with_the_client(chat: ChatBack, conversation_id: str, question: Question, history: History) -> RunEvent:
    """Asks with the project's own client, which resumes by itself; returns the last event."""
    name, last = f"client {question.name}", RunEvent()
    async with asyncio.timeout(PATIENCE_SECONDS), chat.send(conversation_id, str(question)) as answer:
        async for last in answer:
            history.sights.append(Sight(name, "any", time.monotonic(), last))
    return last
