"""One rig for all scenarios, whole again before each; a table of what was measured at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.figures import SAVED_TO, SCALE, SEED, Figures
from tests.faults.rig import Rig
from tests.faults.scene import Scene

TIMEOUT_SECONDS = 300 * max(1, SCALE)
FIGURES = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """What all scenarios measured."""
    return pytestconfig.stash.setdefault(FIGURES, Figures())


@pytest.fixture(scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Three replicas and what they need."""
    async with Rig(tmp_path_factory.mktemp("faults")) as built:
        yield built


@pytest.fixture
async def scene(request: pytest.FixtureRequest, rig: Rig, figures: Figures) -> Scene:
    """A scenario of this test's own, on a rig without faults."""
    await rig.heal()
    return Scene(request.node.name, rig, await rig.person(), figures)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives scenarios the time that they need on a machine that is busy with other things."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what was measured."""
    figures = config.stash.get(FIGURES, Figures())
    if not figures.counts:
        return
    terminalreporter.section(f"faults measured: CHATBACK_FAULT_SEED={SEED} CHATBACK_FAULT_SCALE={SCALE:g}")
    for line in figures.table():
        terminalreporter.write_line(line)
    if SAVED_TO:
        figures.save(Path(SAVED_TO))
