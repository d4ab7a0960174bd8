"""Memory that was freed, given back to the system."""

import asyncio
import ctypes
import sys

_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


async def give_back_memory() -> None:
    """Returns pages that are free, which glibc keeps after a busy time for as long as the process lives.

    Takes milliseconds, beside the event loop. Does nothing where the C library has no such function.
    """
    if trim := getattr(_LIBRARY, "malloc_trim", None):
        await asyncio.to_thread(trim, 0)
