"""The service as it runs in production: registration apart, nothing is switched off for the measurement."""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import LOAD_CORE, SERVER_CORE, BenchError, free_port, running
from entrypoints.embedded import embedded_servers

POOL_SIZE = 10
LIMITLESS = "1000000"


@dataclass(frozen=True, slots=True)
class Site:
    """A folder for everything that a measurement leaves, and servers that may use any core."""

    folder: Path
    database_url: str
    redis_url: str
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """A program under load: where it listens for gRPC, its process id, and where for REST, if it does."""

    address: str
    pid: int
    rest_address: str = ""


@contextmanager
def site(say: Callable[[str], None]) -> Iterator[Site]:
    """Makes a folder for logs and runs PostgreSQL and Valkey; nothing is left of it, except logs after an error."""
    with (
        _logs() as folder,
        tempfile.TemporaryDirectory(prefix="chatback-bench-servers-") as servers,
        embedded_servers(Path(servers), postgres=True, valkey=True, say=say) as urls,
    ):
        if urls.database_url is None or urls.redis_url is None:
            raise BenchError("the embedded servers were asked for and gave no address")
        yield Site(folder, urls.database_url, urls.redis_url)


@contextmanager
def _logs() -> Iterator[Path]:
    """Makes a folder that is kept only if something could not be measured: then the error names a log in it."""
    folder, kept = Path(tempfile.mkdtemp(prefix="chatback-bench-")), False
    try:
        yield folder
    except BenchError:
        kept = True
        raise
    finally:
        if not kept:
            shutil.rmtree(folder)


@contextmanager
def service(place: Site, model_port: int) -> Iterator[Server]:
    """Runs the service on its core, answering with the model on that port; each start is a fresh process."""
    port, rest_port = free_port(), free_port()
    settings = {
        "CHATBACK_ENVIRONMENT": "production",
        "CHATBACK_SECRET_KEY": place.secret_key,
        "CHATBACK_REGISTRATION_OPEN": "true",
        "CHATBACK_DATA_DIR": str(place.folder / "data"),
        "CHATBACK_DATABASE_URL": place.database_url,
        "CHATBACK_DATABASE_POOL_SIZE": str(POOL_SIZE),
        "CHATBACK_REDIS_URL": place.redis_url,
        "CHATBACK_GRPC_PORT": str(port),
        "CHATBACK_REST_PORT": str(rest_port),
        "CHATBACK_OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1",
        "CHATBACK_OPENAI_API_KEY": "bench",
        "CHATBACK_CHAT_MODEL": "bench",
        # The load is one user; how much one user may do is no question here, but it is still asked.
        "CHATBACK_CALLS_PER_SECOND": LIMITLESS,
        "CHATBACK_CALLS_BURST": LIMITLESS,
        "CHATBACK_LOG_FORMAT": "json",
    }
    log = place.folder / f"service-{port}.log"
    with running("entrypoints.cli", "api", port=port, core=SERVER_CORE, log=log, settings=settings) as pid:
        yield Server(f"127.0.0.1:{port}", pid, f"127.0.0.1:{rest_port}")


@contextmanager
def model(place: Site, tokens: int, delay: float = 0, at_once: int = 0, *, stamped: bool = False) -> Iterator[int]:
    """Runs the model's endpoint on the load's core and yields its port."""
    port = free_port()
    words = [str(word) for word in (port, tokens, delay, at_once)] + ["--stamped"] * stamped
    with running("bench.upstream", *words, port=port, core=LOAD_CORE, log=place.folder / "upstream.log"):
        yield port


@contextmanager
def echo(place: Site, tokens: int) -> Iterator[Server]:
    """Runs the bare server on the service's core."""
    port = free_port()
    log = place.folder / "echo.log"
    with running("bench.echo", str(port), str(tokens), port=port, core=SERVER_CORE, log=log) as pid:
        yield Server(f"127.0.0.1:{port}", pid)
