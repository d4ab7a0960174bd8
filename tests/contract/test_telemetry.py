"""What every telemetry owes those who report to it."""

import time
from typing import Protocol

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.prometheus.telemetry import PrometheusTelemetry
from application.ports.telemetry import Telemetry
from domain.run import RunState
from tests.fakes.telemetry import FakeTelemetry

SEND = "/chatback.v1.ChatService/SendMessage"
GET = "/chatback.v1.ChatService/GetRun"


class Reader(Protocol):
    """What somebody sees who looks at the telemetry."""

    def calls(self, name: str) -> float: ...
    def messages(self, name: str) -> float: ...
    def handled(self, name: str, code: str) -> float: ...
    def runs(self) -> float: ...
    def endings(self, state: RunState) -> float: ...
    def first_tokens(self) -> tuple[float, float]: ...
    def token_gaps(self) -> tuple[float, float]: ...
    def batches(self) -> tuple[float, float]: ...
    def lags(self) -> tuple[float, float]: ...


class FakeReader(Reader):
    def __init__(self, telemetry: FakeTelemetry) -> None:
        self._telemetry = telemetry

    def calls(self, name: str) -> float:
        return self._telemetry.calls[name]

    def messages(self, name: str) -> float:
        return self._telemetry.messages[name]

    def handled(self, name: str, code: str) -> float:
        return self._telemetry.handled.count((name, code))

    def runs(self) -> float:
        return self._telemetry.runs

    def endings(self, state: RunState) -> float:
        return self._telemetry.endings.count(state)

    def first_tokens(self) -> tuple[float, float]:
        return len(self._telemetry.first_tokens), sum(self._telemetry.first_tokens)

    def token_gaps(self) -> tuple[float, float]:
        return len(self._telemetry.token_gaps), sum(self._telemetry.token_gaps)

    def batches(self) -> tuple[float, float]:
        return len(self._telemetry.rounds), sum(events for events, _ in self._telemetry.rounds)

    def lags(self) -> tuple[float, float]:
        return len(self._telemetry.rounds), sum(seconds for _, seconds in self._telemetry.rounds)


class PrometheusReader(Reader):
    def __init__(self, telemetry: PrometheusTelemetry) -> None:
        self._telemetry = telemetry

    def calls(self, name: str) -> float:
        return self._value("grpc_server_started_total", **_labels(name))

    def messages(self, name: str) -> float:
        return self._value("grpc_server_msg_sent_total", **_labels(name))

    def handled(self, name: str, code: str) -> float:
        return self._value("grpc_server_handled_total", **_labels(name), grpc_code=code)

    def runs(self) -> float:
        return self._value("chatback_runs_started_total")

    def endings(self, state: RunState) -> float:
        return self._value("chatback_runs_ended_total", state=state)

    def first_tokens(self) -> tuple[float, float]:
        return self._histogram("chatback_first_token_seconds")

    def token_gaps(self) -> tuple[float, float]:
        return self._histogram("chatback_token_gap_seconds")

    def batches(self) -> tuple[float, float]:
        return self._histogram("chatback_log_batch_events")

    def lags(self) -> tuple[float, float]:
        return self._histogram("chatback_log_lag_seconds")

    def _histogram(self, name: str) -> tuple[float, float]:
        return self._value(f"{name}_count"), self._value(f"{name}_sum")

    def _value(self, name: str, **labels: str) -> float:
        text, _ = self._telemetry.exposition()
        samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
        found = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
        return sum(found)


def _labels(name: str) -> dict[str, str]:
    _, service, method = name.split("/") if name else ("", "unknown", "unknown")
    return {"grpc_service": service, "grpc_method": method}


class TelemetryContract:
    def test_calls_are_counted_by_method_and_code(self, telemetry: Telemetry, reader: Reader) -> None:
        send, get = telemetry.method(SEND, streams=True), telemetry.method(GET, streams=False)
        for meter in (send, send, get):
            meter.started()
        send.handled("OK", 0.5)
        send.handled("UNAVAILABLE", 0.5)
        assert (reader.calls(SEND), reader.calls(GET)) == (2, 1)
        assert (reader.handled(SEND, "OK"), reader.handled(SEND, "UNAVAILABLE"), reader.handled(GET, "OK")) == (1, 1, 0)

    def test_messages_are_counted_by_method(self, telemetry: Telemetry, reader: Reader) -> None:
        meter = telemetry.method(SEND, streams=True)
        for _ in range(3):
            meter.sent()
        assert (reader.messages(SEND), reader.messages(GET)) == (3, 0)

    def test_two_meters_of_a_method_count_together(self, telemetry: Telemetry, reader: Reader) -> None:
        telemetry.method(SEND, streams=True).started()
        telemetry.method(SEND, streams=True).started()
        assert reader.calls(SEND) == 2

    def test_calls_of_what_does_not_exist_are_counted_together(self, telemetry: Telemetry, reader: Reader) -> None:
        telemetry.method("", streams=False).handled("UNIMPLEMENTED", 0)
        assert reader.handled("", "UNIMPLEMENTED") == 1

    def test_runs_are_counted_by_how_they_end(self, telemetry: Telemetry, reader: Reader) -> None:
        for state in (RunState.COMPLETED, RunState.COMPLETED, RunState.FAILED):
            telemetry.run_started()
            telemetry.run_ended(state)
        assert reader.runs() == 3
        assert [reader.endings(state) for state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)] == [
            2,
            1,
            0,
        ]

    def test_times_are_counted_and_summed(self, telemetry: Telemetry, reader: Reader) -> None:
        telemetry.first_token(0.25)
        telemetry.token_gap(0.5)
        telemetry.token_gap(100)
        assert (reader.first_tokens(), reader.token_gaps()) == ((1, 0.25), (2, 100.5))

    def test_rounds_are_counted_with_their_events_and_their_lag(self, telemetry: Telemetry, reader: Reader) -> None:
        telemetry.log_written(7, 0.25)
        telemetry.log_written(100_000, 0.5)
        assert (reader.batches(), reader.lags()) == ((2, 100_007), (2, 0.75))


class TestFakeTelemetry(TelemetryContract):
    @pytest.fixture
    def telemetry(self) -> FakeTelemetry:
        return FakeTelemetry()

    @pytest.fixture
    def reader(self, telemetry: FakeTelemetry) -> Reader:
        return FakeReader(telemetry)


class TestPrometheusTelemetry(TelemetryContract):
    @pytest.fixture
    def telemetry(self) -> PrometheusTelemetry:
        return PrometheusTelemetry()

    @pytest.fixture
    def reader(self, telemetry: PrometheusTelemetry) -> Reader:
        return PrometheusReader(telemetry)

    def test_a_value_on_a_bound_is_in_that_bound_s_bucket(self, telemetry: PrometheusTelemetry) -> None:
        for seconds in (0.05, 0.06, 31):
            telemetry.token_gap(seconds)
        text = telemetry.exposition()[0].decode()
        buckets = {le: f'chatback_token_gap_seconds_bucket{{le="{le}"}} {count}' for le, count in BUCKETS}
        assert [le for le, line in buckets.items() if line not in text] == []

    def test_a_gauge_shows_the_value_at_the_time_of_looking(self, telemetry: PrometheusTelemetry) -> None:
        value = 1.0
        telemetry.gauge("chatback_test", "A test.", lambda: value)
        value = 5.0
        assert "chatback_test 5.0" in telemetry.exposition()[0].decode()

    def test_an_event_costs_little(self, telemetry: PrometheusTelemetry) -> None:
        """The bound is twenty times what it takes, for a machine that does much else."""
        meter = telemetry.method(SEND, streams=True)
        began = time.thread_time()
        for _ in range(1000):
            meter.sent()
            telemetry.token_gap(0.05)
        assert time.thread_time() - began < 0.02


BUCKETS = (("0.025", "0.0"), ("0.05", "1.0"), ("0.1", "2.0"), ("30.0", "2.0"), ("+Inf", "3.0"))
