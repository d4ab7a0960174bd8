"""A real browser without a window, over its DevTools protocol."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
SECONDS = 20
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)


class Page:
    """One page. `complaints` are errors of its scripts and of the console, `requests` the URLs it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[Any] = []
        self.requests: list[str] = []
        self._socket = socket
        self._calls = 0

    async def open(self, url: str) -> None:
        """Begins to load a page."""
        for domain in ("Runtime", "Log", "Network", "Page"):
            await self._call(f"{domain}.enable")
        await self._call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """Returns the value of an expression, awaited if it is a promise."""
        answer = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Asks again and again until an expression is true, and returns its value."""
        async with asyncio.timeout(SECONDS):
            while not (value := await self.run(script)):
                await self.run("new Promise(requestAnimationFrame)")
        return value

    async def _call(self, method: str, **parameters: Any) -> Any:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=SECONDS)
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event["method"], event["params"]:
            case "Network.requestWillBeSent", {"request": request}:
                self.requests.append(request["url"])
            case "Runtime.exceptionThrown", complaint:
                self.complaints.append(complaint)
            case "Log.entryAdded", {"entry": {"level": "error"} as entry}:
                self.complaints.append(entry)
            case "Runtime.consoleAPICalled", {"type": "error"} as complaint:
                self.complaints.append(complaint)


@asynccontextmanager
async def blank_page(folder: Path) -> AsyncIterator[Page]:
    """Opens an empty page in a browser of its own, which keeps what it writes in this folder."""
    assert CHROMIUM is not None
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, *OPTIONS, f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        port = await _port(browser)
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as listed:
                target = next(each for each in await listed.json() if each["type"] == "page")
            async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
                yield Page(socket)
    finally:
        browser.terminate()
        await browser.wait()


async def _port(browser: asyncio.subprocess.Process) -> str:
    """Waits until the browser says where it listens."""
    assert browser.stderr is not None
    async with asyncio.timeout(SECONDS):
        async for line in browser.stderr:
            if line.startswith(b"DevTools listening on "):
                return line.decode().split(":")[2].partition("/")[0]
    raise AssertionError("the browser ended before it listened")
