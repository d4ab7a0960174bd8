"""What every event bus owes replicas."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from adapters.redis.client import connect, connect_listener
from adapters.redis.event_bus import RedisEventBus
from application.ports.event_bus import BusMessage, CancelWanted, EventBus, Interest, News, OrphansLeft
from domain.run import AttemptReset, Cancelled, EventBody, Failed, RunEvent, TextDelta
from tests.ears import PATIENCE, listening
from tests.fakes.event_bus import FakeBusNetwork, FakeEventBus

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)

Join = Callable[[], EventBus]
"""Makes another replica's end of the bus."""


def event(body: EventBody, seq: int = 2) -> RunEvent:
    return RunEvent(uuid4(), uuid4(), seq, 1, NOW, body)


class EventBusContract:
    @pytest.mark.parametrize(
        "message",
        [
            Interest(uuid4(), (uuid4(), uuid4())),
            Interest(uuid4(), ()),
            News((event(TextDelta("Grüße 👋")),)),
            News((event(AttemptReset("REPLICA_LOST")),)),
            News((event(Failed("MODEL_FAILED", "The model broke off.")),)),
            News((event(Cancelled()),)),
            News((event(TextDelta("a")),), newest=((uuid4(), 7), (uuid4(), 2**40))),
            CancelWanted(uuid4()),
            OrphansLeft(),
        ],
        ids=lambda message: type(message).__name__,
    )
    async def test_a_message_arrives_as_it_was_sent(self, join: Join, message: BusMessage) -> None:
        sender, replica_id = join(), uuid4()
        async with listening(join(), replica_id, caller=sender) as ear:
            await sender.send([(replica_id, message)])
            assert await ear.next() == message

    async def test_many_events_arrive_in_one_message(self, join: Join) -> None:
        bus, replica_id = join(), uuid4()
        news = News(tuple(event(TextDelta(f"word {seq} "), seq) for seq in range(1, 2000)))
        async with listening(bus, replica_id) as ear:
            await bus.send([(replica_id, news)])
            assert await ear.next() == news

    async def test_messages_arrive_in_the_order_in_which_they_were_sent(self, join: Join) -> None:
        bus, replica_id = join(), uuid4()
        messages = [CancelWanted(uuid4()) for _ in range(300)]
        async with listening(bus, replica_id) as ear:
            for begin in range(0, 300, 3):
                await bus.send([(replica_id, message) for message in messages[begin : begin + 3]])
            assert [await ear.next() for _ in messages] == messages

    async def test_only_the_addressee_gets_a_message(self, join: Join) -> None:
        bus, first_id, second_id = join(), uuid4(), uuid4()
        for_first, for_second = CancelWanted(uuid4()), CancelWanted(uuid4())
        async with listening(join(), first_id, caller=bus) as first, listening(join(), second_id, caller=bus) as second:
            await bus.send([(first_id, for_first), (second_id, for_second)])
            await bus.send([(first_id, OrphansLeft()), (second_id, OrphansLeft())])
            assert [await first.next(), await first.next()] == [for_first, OrphansLeft()]
            assert [await second.next(), await second.next()] == [for_second, OrphansLeft()]

    async def test_a_replica_may_send_to_itself(self, join: Join) -> None:
        bus, replica_id = join(), uuid4()
        async with listening(bus, replica_id) as ear:
            await bus.send([(replica_id, OrphansLeft())])
            assert await ear.next() == OrphansLeft()

    async def test_what_was_sent_before_listening_is_lost(self, join: Join) -> None:
        bus, replica_id, late = join(), uuid4(), CancelWanted(uuid4())
        await bus.send([(replica_id, OrphansLeft())])
        async with listening(bus, replica_id) as ear:
            await bus.send([(replica_id, late)])
            assert await ear.next() == late

    async def test_what_was_sent_between_two_times_of_listening_is_lost(self, join: Join) -> None:
        bus, replica_id, late = join(), uuid4(), CancelWanted(uuid4())
        async with listening(bus, replica_id):
            pass
        await bus.send([(replica_id, OrphansLeft())])
        async with listening(bus, replica_id) as ear:
            await bus.send([(replica_id, late)])
            assert await ear.next() == late

    async def test_a_message_for_nobody_harms_nobody(self, join: Join) -> None:
        bus, replica_id = join(), uuid4()
        async with listening(bus, replica_id) as ear:
            await bus.send([(uuid4(), OrphansLeft()), (replica_id, OrphansLeft())])
            assert await ear.next() == OrphansLeft()

    async def test_to_send_nothing_is_harmless(self, join: Join) -> None:
        await join().send([])


class TestFakeEventBus(EventBusContract):
    @pytest.fixture
    def network(self) -> FakeBusNetwork:
        return FakeBusNetwork()

    @pytest.fixture
    def join(self, network: FakeBusNetwork) -> Join:
        return lambda: FakeEventBus(network)

    async def test_messages_are_lost_while_the_network_is_cut(self, network: FakeBusNetwork) -> None:
        bus, replica_id, late = FakeEventBus(network), uuid4(), CancelWanted(uuid4())
        async with listening(bus, replica_id) as ear:
            network.cut = True
            await bus.send([(replica_id, OrphansLeft())])
            network.cut = False
            await bus.send([(replica_id, late)])
            assert await ear.next() == late

    async def test_what_was_sent_is_kept_also_what_was_lost(self, network: FakeBusNetwork) -> None:
        bus, replica_id = FakeEventBus(network), uuid4()
        network.cut = True
        await bus.send([(replica_id, OrphansLeft())])
        assert bus.sent == [(replica_id, OrphansLeft())]


class TestRedisEventBus(EventBusContract):
    @pytest.fixture
    async def join(self, redis_url: str) -> AsyncIterator[Join]:
        async with AsyncExitStack() as stack:

            def joined() -> EventBus:
                sending = connect(redis_url, timeout_seconds=PATIENCE)
                hearing = connect_listener(redis_url, timeout_seconds=PATIENCE)
                stack.push_async_callback(sending.aclose)
                stack.push_async_callback(hearing.aclose)
                return RedisEventBus(sending, hearing, timeout_seconds=PATIENCE, quiet_seconds=PATIENCE)

            yield joined

    async def test_the_channel_s_name_keeps_to_one_slot_of_a_cluster(self, redis_url: str, join: Join) -> None:
        replica_id, client = UUID("01890a5d-ac96-774b-bcce-b302099a8057"), connect(redis_url, timeout_seconds=PATIENCE)
        async with listening(join(), replica_id):
            assert await client.pubsub_channels("*:{01890a5d-*}") == [
                b"chatback:replica:{01890a5d-ac96-774b-bcce-b302099a8057}"
            ]
        await client.aclose()
