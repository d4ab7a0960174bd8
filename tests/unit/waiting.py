"""Waiting for other tasks without a clock."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Lets the other tasks go on until the condition holds; fails when they have had 30 seconds for it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 30
    while not condition():
        assert loop.time() < end, "it never came to that"
        await asyncio.sleep(0)


async def settled() -> None:
    """Lets the other tasks go on as far as they can without anything from outside."""
    for _ in range(50):
        await asyncio.sleep(0)
