"""The running service through the tools that people try an API with; no file of ours is given to them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.caller import Person
from tests.e2e.service import Service
from tests.fakes.openai_endpoint import OpenAIEndpoint

GRPCURL = shutil.which("grpcurl") or shutil.which(Path("~/go/bin/grpcurl").expanduser())
BUF = str(Path(sys.executable).with_name("buf"))

needs_grpcurl = pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")


async def output_of(*command: str | None) -> str:
    """Runs a tool that has to succeed."""
    words = [word for word in command if word]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd="/"
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def documents(output: str) -> list[Any]:
    """Takes apart JSON documents that follow one another."""
    decoder, found, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


async def grpcurl(service: Service, me: Person, method: str, request: object) -> list[Any]:
    authorization = f"authorization: Bearer {me.tokens.access_token}"
    words = ("-plaintext", "-H", authorization, "-d", json.dumps(request), service.target, f"chatback.v1.{method}")
    return documents(await output_of(GRPCURL, *words))


async def buf_curl(service: Service, me: Person, method: str, request: object) -> list[Any]:
    authorization = f"authorization: Bearer {me.tokens.access_token}"
    words = ("--protocol", "grpc", "--http2-prior-knowledge", "-H", authorization, "-d", json.dumps(request))
    return documents(await output_of(BUF, "curl", *words, f"http://{service.target}/chatback.v1.{method}"))


@needs_grpcurl
async def test_grpcurl_lists_the_services(service: Service) -> None:
    listed = (await output_of(GRPCURL, "-plaintext", service.target, "list")).split()
    assert {f"chatback.v1.{name}Service" for name in ("Auth", "Conversation", "Chat", "Model")} <= set(listed)
    assert "grpc.health.v1.Health" in listed


@needs_grpcurl
async def test_grpcurl_describes_every_listed_service(service: Service) -> None:
    for name in (await output_of(GRPCURL, "-plaintext", service.target, "list")).split():
        assert f"{name} is a service" in await output_of(GRPCURL, "-plaintext", service.target, "describe", name)


@needs_grpcurl
async def test_grpcurl_calls_and_streams(service: Service, me: Person, endpoint: OpenAIEndpoint) -> None:
    (who,) = await grpcurl(service, me, "AuthService/GetCurrentUser", {})
    assert who["user"]["email"] == me.user.email
    question = {"conversationId": (await me.converse()).conversation_id, "content": "Hello"}
    events = await grpcurl(service, me, "ChatService/SendMessage", question)
    assert events[-1]["event"]["completed"]["message"]["content"] == "Hello world"


async def test_buf_curl_calls_and_streams(service: Service, me: Person, endpoint: OpenAIEndpoint) -> None:
    (who,) = await buf_curl(service, me, "AuthService/GetCurrentUser", {})
    assert who["user"]["email"] == me.user.email
    question = {"conversationId": (await me.converse()).conversation_id, "content": "Hello"}
    events = await buf_curl(service, me, "ChatService/SendMessage", question)
    assert events[-1]["event"]["completed"]["message"]["content"] == "Hello world"


async def test_buf_curl_lists_the_methods(service: Service) -> None:
    words = ("--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", f"http://{service.target}")
    listed = (await output_of(BUF, "curl", *words)).split()
    assert "chatback.v1.ChatService/SendMessage" in listed
