"""What every transaction owes its callers."""

import asyncio

import pytest

from domain.conversation import ConversationChange
from domain.errors import ConversationNotFound, UserNotFound
from tests.builders import NOW, a_caller, a_conversation, a_user, new_id
from tests.stores import Store, a_registered_caller, a_stored_conversation


class UnitOfWorkContract:
    async def test_a_block_without_commit_changes_nothing(self, store: Store) -> None:
        user = a_user()
        async with store.unit_of_work() as work:
            await work.users.add(user, "hash")
        async with store.unit_of_work.reading() as work:
            with pytest.raises(UserNotFound):
                await work.users.get(user.user_id)

    async def test_a_block_that_raises_changes_nothing(self, store: Store) -> None:
        user = a_user()

        async def add_and_fail() -> None:
            async with store.unit_of_work() as work:
                await work.users.add(user, "hash")
                raise UserNotFound

        with pytest.raises(UserNotFound):
            await add_and_fail()
        async with store.unit_of_work.reading() as work:
            assert await work.users.password_hash(user.user_id) is None

    async def test_a_block_sees_its_own_changes(self, store: Store) -> None:
        user = a_user()
        async with store.unit_of_work() as work:
            await work.users.add(user, "hash")
            assert await work.users.get(user.user_id) == user

    async def test_nobody_else_sees_changes_before_the_commit(self, store: Store) -> None:
        user = a_user()
        async with store.unit_of_work() as work:
            await work.users.add(user, "hash")
            async with store.unit_of_work.reading() as other:
                assert await other.users.credentials(user.email) is None
            await work.commit()
        async with store.unit_of_work.reading() as other:
            assert await other.users.credentials(user.email) == (user, "hash")

    async def test_a_cancelled_block_changes_nothing(self, store: Store) -> None:
        caller, added = await a_registered_caller(store), asyncio.Event()
        conversation = a_conversation(caller)

        async def add_and_stay() -> None:
            async with store.unit_of_work() as work:
                await work.conversations.add(conversation)
                added.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(add_and_stay())
        await added.wait()
        task.cancel()
        await asyncio.wait([task])
        async with store.unit_of_work.reading() as work:
            with pytest.raises(ConversationNotFound):
                await work.conversations.get(conversation.conversation_id, caller)

    async def test_a_locked_conversation_is_changed_by_one_after_the_other(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)

        async def lengthen_title() -> None:
            async with store.unit_of_work() as work:
                locked = await work.conversations.lock(conversation.conversation_id, caller)
                await asyncio.sleep(0)
                await work.conversations.save(locked.updated(ConversationChange(locked.title + "!"), NOW))
                await work.commit()

        await asyncio.gather(*(lengthen_title() for _ in range(4)))
        async with store.unit_of_work.reading() as work:
            assert (await work.conversations.get(conversation.conversation_id, caller)).title == "Weather!!!!"

    async def test_of_rivals_with_one_request_id_one_claims_it_and_the_others_learn_its_resource(
        self, store: Store
    ) -> None:
        caller = a_caller()

        async def claim() -> tuple[object, object]:
            mine = new_id()
            async with store.unit_of_work() as work:
                earlier = await work.requests.claim(caller, "r-1", b"digest", mine, NOW)
                await work.commit()
            return mine, earlier

        outcomes = await asyncio.gather(*(claim() for _ in range(4)))
        [winner] = [mine for mine, earlier in outcomes if earlier is None]
        assert [earlier for _, earlier in outcomes if earlier is not None] == [winner] * 3

    async def test_a_claim_that_was_undone_leaves_the_request_id_free(self, store: Store) -> None:
        caller = a_caller()
        async with store.unit_of_work() as work:
            await work.requests.claim(caller, "r-1", b"digest", new_id(), NOW)
        async with store.unit_of_work() as work:
            assert await work.requests.claim(caller, "r-1", b"other digest", new_id(), NOW) is None


class TestFakeUnitOfWork(UnitOfWorkContract):
    @pytest.fixture
    def store(self, in_memory: Store) -> Store:
        return in_memory


class TestPostgresUnitOfWork(UnitOfWorkContract):
    @pytest.fixture
    def store(self, in_postgres: Store) -> Store:
        return in_postgres
