"""Waiting for other tasks without a clock."""

import asyncio
from collections.abc import Callable

TURNS = 2_000


async def until(condition: Callable[[], object]) -> None:
    """Lets the other tasks go on until the condition holds; fails when they have had a great many turns."""
    for _ in range(TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def settled() -> None:
    """Lets the other tasks go on as far as they can without anything from outside."""
    for _ in range(50):
        await asyncio.sleep(0)
