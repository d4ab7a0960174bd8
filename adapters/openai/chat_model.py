"""Chat Completions of OpenAI, or of any server that speaks the same: vLLM, llama.cpp, Ollama, gateways.

The HTTP client is aiohttp with its C parser: at a model's real pace, one token a read, the client is most of the cost,
and this one costs a quarter of the SDK's.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import aiohttp
import msgspec
import structlog

from adapters.openai.answer import Answer
from adapters.openai.chunk import document
from adapters.openai.errors import EndpointError, model_error, retry_delay
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

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str | None,
        connect_seconds: float = 5,
        first_token_seconds: float = 30,
        gap_seconds: float = 20,
    ) -> None:
        base_url = (base_url or OPENAI_URL).rstrip("/")
        self._url = f"{base_url}/chat/completions"
        # Servers know one name or the other for the bound; OpenAI's newer models refuse the older name.
        self._bound = "max_completion_tokens" if urlsplit(base_url).hostname == "api.openai.com" else "max_tokens"
        self._api_key = api_key
        self._connect = connect_seconds
        self._first_token = first_token_seconds
        self._gap = gap_seconds
        self._session: aiohttp.ClientSession | None = None
        self._left: WeakSet[Answer] = WeakSet()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str | Finish, None]:
        """Yields the text of each network read as one piece, then the `Finish`; see the port."""
        with _failure_logged(request.model):
            answer, piece = await self._begin(request)
            try:
                while isinstance(piece, str):
                    yield piece
                    piece = await answer.next()
            except BaseException:
                answer.close()
                raise
        answer.leave()
        self._left.add(answer)
        yield piece

    async def close(self) -> None:
        """Closes all connections."""
        for answer in list(self._left):
            answer.close()
        if self._session is not None:
            await self._session.close()

    async def _begin(self, request: ChatRequest) -> tuple[Answer, str | Finish]:
        """Returns an answer and its first piece, of a second attempt if need be; both share the first token's time."""
        now = asyncio.get_running_loop().time
        deadline = now() + self._first_token
        try:
            return await self._attempt(request, deadline)
        except (ModelRateLimited, ModelUnavailable) as error:
            delay = retry_delay(error)
            if delay is None or now() + delay >= deadline:
                raise
            log.info("model.retried", reason=error.reason, seconds=delay, cause=str(error.__cause__))
        await asyncio.sleep(delay)
        return await self._attempt(request, deadline)

    async def _attempt(self, request: ChatRequest, deadline: float) -> tuple[Answer, str | Finish]:
        answer = Answer(
            await self._post(request, deadline),
            request.model,
            deadline=deadline,
            first_token=self._first_token,
            gap=self._gap,
        )
        try:
            return answer, await answer.next()
        except BaseException:
            answer.close()
            raise

    async def _post(self, request: ChatRequest, deadline: float) -> aiohttp.ClientResponse:
        """Returns the response once its head is there and says that an answer follows."""
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._open_session().post(
                    self._url, data=BytesIO(self._body(request)), allow_redirects=False
                )
        except (aiohttp.ClientError, OSError) as failure:
            # Our own timeout is an OSError too; aiohttp's are ClientErrors, and mean the connection.
            if isinstance(failure, aiohttp.ClientError) or not isinstance(failure, TimeoutError):
                raise ModelUnavailable from failure
            raise ModelStalled(self._first_token) from failure
        if response.status < 300:
            return response
        refusal = await _refusal(response)
        raise model_error(refusal, request.model) from refusal

    def _open_session(self) -> aiohttp.ClientSession:
        """Returns the session, made at first use as it needs the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect),
                read_bufsize=_READ_BUFFER,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "User-Agent": "chatback",
        }
        return headers if self._api_key is None else {**headers, "Authorization": f"Bearer {self._api_key}"}

    def _body(self, request: ChatRequest) -> bytes:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": turn.role.lower(), "content": turn.text} for turn in request.turns],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_output_tokens is not None:
            body[self._bound] = request.max_output_tokens
        return msgspec.json.encode(body)


@contextmanager
def _failure_logged(model: str) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        log.warning("model.failed", reason=error.reason, model=model, cause=str(error.__cause__))
        raise


async def _refusal(response: aiohttp.ClientResponse) -> EndpointError:
    """Reads what a response of another status than 2xx says; the status alone has to do where that goes wrong."""
    body = b""
    with suppress(aiohttp.ClientError, OSError), closing(response):
        async with asyncio.timeout(_REFUSAL_SECONDS):
            while len(body) < _REFUSAL_LIMIT and (data := await response.content.readany()):
                body += data
    return EndpointError(response.status, _said(body), response.headers.get("Retry-After", ""))


def _said(body: bytes) -> object:
    with suppress(ValueError):
        return document(body)
    return body.decode("utf-8", "replace")
