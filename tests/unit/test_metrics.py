"""The metrics of several workers, whichever of them is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from adapters.prometheus.gathering import gathered
from adapters.prometheus.telemetry import PrometheusTelemetry
from entrypoints.metrics import metrics_page
from entrypoints.private_folder import private_folder
from entrypoints.rest.app import Page
from entrypoints.worker import Worker


def telemetry_of(runs: int) -> PrometheusTelemetry:
    telemetry = PrometheusTelemetry()
    telemetry.gauge("chatback_runs_running", "Runs.", lambda: runs)
    telemetry.first_token(0.3)
    for _ in range(runs):
        telemetry.run_started()
    return telemetry


async def shown(page: Page, name: str) -> dict[str, float]:
    """Returns a sample of each worker; without workers its label is empty."""
    text = (await page()).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.labels.get("worker", ""): sample.value for sample in samples if sample.name == name}


@asynccontextmanager
async def two_workers(folder: Path) -> AsyncIterator[tuple[Page, Page]]:
    async with (
        metrics_page(telemetry_of(1), Worker(1, folder)) as first,
        metrics_page(telemetry_of(2), Worker(2, folder)) as second,
    ):
        yield first, second


async def test_each_shows_those_of_all_with_the_worker_as_a_label() -> None:
    with private_folder() as folder:
        async with two_workers(folder) as pages:
            for page in pages:
                assert await shown(page, "chatback_runs_running") == {"1": 1, "2": 2}
                assert await shown(page, "chatback_runs_started_total") == {"1": 1, "2": 2}
                assert await shown(page, "chatback_first_token_seconds_count") == {"1": 1, "2": 1}


async def test_one_that_died_is_left_out_until_the_next_takes_its_place() -> None:
    with private_folder() as folder:
        (folder / "3.metrics").touch()  # what is left of one that was killed
        async with two_workers(folder) as (first, _):
            assert await shown(first, "chatback_runs_running") == {"1": 1, "2": 2}
            async with metrics_page(telemetry_of(3), Worker(3, folder)):
                assert await shown(first, "chatback_runs_running") == {"1": 1, "2": 2, "3": 3}


async def test_the_only_process_has_no_such_label() -> None:
    async with metrics_page(telemetry_of(1), None) as page:
        assert await shown(page, "chatback_runs_running") == {"": 1}


def test_a_family_is_named_once_however_many_have_it() -> None:
    text = gathered({number: telemetry_of(number).exposition()[0] for number in (2, 1)}).decode()
    assert text.count("# TYPE chatback_runs_started_total counter\n") == 1
    assert text.index('started_total{worker="1"} 1.0') < text.index('started_total{worker="2"} 2.0')
