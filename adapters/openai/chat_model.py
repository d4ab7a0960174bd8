"""Chat Completions of OpenAI, or of any server that speaks the same: vLLM, llama.cpp, Ollama, gateways.

The HTTP client is aiohttp with its C parser: at a model's real pace, one token a read, the client is most of the cost,
and this one costs a quarter of the SDK's.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from adapters.openai.answer import Answer
from adapters.openai.chunk import document
from adapters.openai.errors import Refusal, model_error, retry_delay
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from domain.errors import ModelError, ModelRateLimited, ModelStalled, ModelUnavailable

OPENAI_URL = "https://api.openai.com/v1"
_READ_BUFFER = 1 << 16
_REFUSAL_LIMIT = 1 << 16
_REFUSAL_SECONDS = 2.0

log = structlog.get_logger()


class OpenAIChatModel(ChatModel):
    """Streams answers over one shared session; connections are kept alive, and as many are open as answers are made.

    `base_url` ends where `/chat/completions` begins; None is OpenAI itself. A server without keys needs no `api_key`.
    Proxies in the environment are not used. The system's trust store decides about TLS. A request that fails before
    the first piece is made once more where that may help: no connection, 429, 500, 502, 503, 504.
    """

    def __init__(self, *, api_key: str | None, base_url: str | None, connect_seconds: float = 5,
                 first_token_seconds: float = 30, gap_seconds: float = 20) -> None:
        base_url = (base_url or OPENAI_URL).rstrip("/")
        self._url = f"{base_url}/chat/completions"
        # Servers know one name or the other for the bound; OpenAI's newer models refuse the older name.
        self._bound = "max_completion_tokens" if urlsplit(base_url).hostname == "api.openai.com" else "max_tokens"
        self._api_key = api_key
        self._connect = connect_seconds
        self._first_token = first_token_seconds
        self._gap = gap_seconds
        self._session: aiohttp.ClientSession | None = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str | Finish, None]:
        """Yields the text of each network read as one piece, then the `Finish`; see the port."""
        try:
            answer, piece = await self._begin(request)
            try:
                while isinstance(piece, str):
                    yield piece
                    piece = await answer.next()
            ...
