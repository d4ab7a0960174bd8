"""Passing folders for unix sockets: this user's alone, and with short paths, as those past 107 bytes are refused."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARENT_LENGTH = 80


@contextmanager
def private_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yields a new folder, below this one if it is given, and removes it with all that is in it."""
    usual = tempfile.gettempdir()
    short = usual if len(usual) <= PARENT_LENGTH else "/tmp"  # noqa: S108 - what is made there is our own
    with tempfile.TemporaryDirectory(prefix="chatback-", dir=parent or short, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
