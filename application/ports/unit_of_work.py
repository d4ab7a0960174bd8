"""One short transaction on the database."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from application.ports.repositories import Conversations, Messages, Requests, Runs, Sessions, Users


class UnitOfWork(Protocol):
    """The repositories within one transaction. Leaving the block without `commit` undoes everything."""

    users: Users
    sessions: Sessions
    conversations: Conversations
    messages: Messages
    runs: Runs
    requests: Requests

    async def commit(self) -> None:
        """Makes all changes of this block visible together."""
        ...


class UnitOfWorkFactory(Protocol):
    """Opens units of work. Their calls raise DatabaseUnavailable when the database does not answer in time."""

    def __call__(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Opens a transaction. Never hold one while waiting for a model, a tool or a client."""
        ...

    def reading(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Opens a block for reads alone: each statement sees its own moment, and costs no begin and no commit."""
        ...
