"""What Prometheus reads from the running service."""

from __future__ import annotations

from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.e2e.caller import Person
from tests.e2e.service import Service
from tests.e2e.web import signed_in
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

CHAT = {"grpc_service": "chatback.v1.ChatService", "grpc_method": "SendMessage", "grpc_type": "server_stream"}
UNKNOWN = {"grpc_service": "unknown", "grpc_method": "unknown"}


class Metrics:
    """All samples of one moment."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Sums the samples of this name that have these labels; fails where there is none of the name."""
        return sum(float(sample.value) for sample in self.named(name) if labels.items() <= sample.labels.items())

    def named(self, name: str) -> list[Sample]:
        """Returns the samples of this name, of which there must be some."""
        found = [sample for sample in self._samples if sample.name == name]
        assert found, f"no {name}"
        return found


async def metrics(service: Service) -> Metrics:
    async with signed_in(service) as web, web.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/plain")
        return Metrics(await response.text())


async def test_an_answer_is_seen_in_the_metrics(service: Service, me: Person, endpoint: OpenAIEndpoint) -> None:
    await me.ask((await me.converse()).conversation_id)
    endpoint.script(answer("Hello", " world", delay=0.05))
    before = await metrics(service)
    events = await me.ask((await me.converse()).conversation_id)
    after = await metrics(service)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("grpc_server_started_total", **CHAT) == 1
    assert grown("grpc_server_handled_total", **CHAT, grpc_code="OK") == 1
    assert grown("grpc_server_msg_sent_total", **CHAT) == len(events)
    assert grown("grpc_server_handling_seconds_count", **CHAT) == 1
    assert grown("chatback_runs_started_total") == 1
    assert grown("chatback_runs_ended_total", state="COMPLETED") == 1
    assert grown("chatback_first_token_seconds_count") == 1
    assert grown("chatback_token_gap_seconds_count") == 1
    assert grown("chatback_log_batch_events_count") == grown("chatback_log_lag_seconds_count")


async def test_runs_and_the_pool_are_seen_as_they_are(service: Service) -> None:
    seen = await metrics(service)
    assert seen.value("chatback_runs_running") == 0
    assert seen.value("chatback_pool_connections") >= seen.value("chatback_pool_connections_in_use") >= 0
    assert seen.value("process_resident_memory_bytes") > 0


async def test_made_up_methods_make_no_labels(service: Service, me: Person) -> None:
    before = await metrics(service)
    for number in range(20):
        method: Any = me.channel.unary_unary(f"/chatback.v1.ChatService/No{number}")
        assert await method(b"").code() is grpc.StatusCode.UNIMPLEMENTED
    after = await metrics(service)
    assert (
        after.value("grpc_server_handled_total", **UNKNOWN) - before.value("grpc_server_handled_total", **UNKNOWN) == 20
    )
    assert len(after.named("grpc_server_started_total")) == len(before.named("grpc_server_started_total"))
