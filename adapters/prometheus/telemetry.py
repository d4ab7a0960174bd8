"""Counters and histograms as Prometheus reads them, under the names that gRPC's dashboards know."""

from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from adapters.prometheus.distribution import Distribution, Distributions
from application.ports.telemetry import MethodMeter, Telemetry
from domain.run import RunState

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
METHOD = ("grpc_type", "grpc_service", "grpc_method")
UNKNOWN = ("unary", "unknown", "unknown")


class PrometheusTelemetry(Telemetry):
    """One registry for the process, for its event loop's thread alone."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series and say little
        self._registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._calls = Counter("grpc_server_started", "Calls that came in.", METHOD, registry=registry)
        self._handled = Counter("grpc_server_handled", "Calls that ended.", (*METHOD, "grpc_code"), registry=registry)
        self._sent = Counter("grpc_server_msg_sent", "Messages sent.", METHOD, registry=registry)
        self._seconds = self._histogram("grpc_server_handling_seconds", "Time of whole calls.", CALL_SECONDS, METHOD)
        self._runs = Counter("chatback_runs_started", "Runs begun.", registry=registry)
        ended = Counter("chatback_runs_ended", "Runs ended, by how.", ("state",), registry=registry)
        self._ended = {state: ended.labels(state) for state in RunState}
        self._first = self._histogram("chatback_first_token_seconds", "Until a model's first text.", TOKEN_SECONDS).of()
        self._gap = self._histogram("chatback_token_gap_seconds", "Between a model's texts.", TOKEN_SECONDS).of()
        self._batch = self._histogram("chatback_log_batch_events", "Events in a round of the log.", BATCH_EVENTS).of()
        self._lag = self._histogram("chatback_log_lag_seconds", "Wait of a round's oldest text.", TOKEN_SECONDS).of()

    def method(self, name: str, *, streams: bool) -> MethodMeter:
        """Returns the meter of a method, `/package.Service/Method`. An empty name stands for all that do not exist."""
        _, service, method = name.split("/") if name else UNKNOWN
        labels = ("server_stream" if streams else "unary", service, method)
        return _Meter(
            self._calls.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.of(*labels),
            lambda code: self._handled.labels(*labels, code),
        )

    def run_started(self) -> None:
        """Counts a run that this replica begins to make."""
        self._runs.inc()

    def run_ended(self, state: RunState) -> None:
        """Counts a run whose end this replica has committed."""
        self._ended[state].inc()

    def first_token(self, seconds: float) -> None:
        """Takes the time from the question to a model until its first piece of text."""
        self._first.observe(seconds)

    def token_gap(self, seconds: float) -> None:
        """Takes the time between two pieces of a model's text."""
        self._gap.observe(seconds)

    def log_written(self, events: int, seconds: float) -> None:
        """Takes the size of a round of the log writer, and for how long its oldest text has waited to be committed."""
        self._batch.observe(events)
        self._lag.observe(seconds)

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Shows what `read` returns at the time of looking."""
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def exposition(self) -> tuple[bytes, str]:
        """Returns everything in Prometheus' text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _histogram(
        self, name: str, documentation: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> Distributions:
        made = Distributions(name, documentation, bounds, labels)
        self._registry.register(made)
        return made


class _Meter(MethodMeter):
    """The label children of one method, looked up once."""

    __slots__ = ("_calls", "_handled", "_make", "_seconds", "_sent")

    def __init__(self, calls: Counter, sent: Counter, seconds: Distribution, handled: Callable[[str], Counter]) -> None:
        self._calls, self._sent, self._seconds, self._make = calls, sent, seconds, handled
        self._handled: dict[str, Counter] = {}

    def started(self) -> None:
        """Counts a call that has come in."""
        self._calls.inc()

    def sent(self) -> None:
        """Counts a message that goes out."""
        self._sent.inc()

    def handled(self, code: str, seconds: float) -> None:
        """Counts a call that has ended, by its status code, and its time from first to last."""
        counter = self._handled.get(code)
        if counter is None:
            counter = self._handled[code] = self._make(code)
        counter.inc()
        self._seconds.observe(seconds)
