"""What /metrics shows: the figures of this process, or of all workers where it is one of several."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from adapters.prometheus.gathering import gathered
from adapters.prometheus.telemetry import PrometheusTelemetry
from entrypoints.rest.answers import Answer
from entrypoints.rest.app import Page
from entrypoints.worker import Worker

ASK_SECONDS = 2
"""How long a worker may take to tell its figures; one that does not is left out."""
SUFFIX = ".metrics"
MEDIA_TYPE = CONTENT_TYPE_LATEST.encode()


@asynccontextmanager
async def metrics_page(telemetry: PrometheusTelemetry, worker: Worker | None) -> AsyncIterator[Page]:
    """Yields the page. Workers tell one another their figures on unix sockets: a scrape reaches any one of them."""

    async def own() -> Answer:
        return Answer(200, telemetry.exposition()[0], MEDIA_TYPE)

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(telemetry.exposition()[0])
        writer.close()

    async def everyones(places: Sequence[Path]) -> Answer:
        texts = await asyncio.gather(*map(_told, places))
        found = {int(place.stem): text for place, text in zip(places, texts, strict=True) if text}
        return Answer(200, gathered(found), MEDIA_TYPE)

    if worker is None:
        yield own
        return
    place = worker.folder / f"{worker.number}{SUFFIX}"
    place.unlink(missing_ok=True)  # one that was killed left it
    async with await asyncio.start_unix_server(tell, place):
        yield lambda: everyones(list(worker.folder.glob(f"*{SUFFIX}")))


async def _told(place: Path) -> bytes:
    """Returns what the worker at this socket tells, nothing where none answers."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(place)
            try:
                return await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
