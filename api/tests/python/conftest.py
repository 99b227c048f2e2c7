"""One throw-away server for all tests that need not kill theirs, and a client of it for each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from server import BINARY, Server, is_free


def pytest_report_header() -> str:
    return f"server: {BINARY}"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("shared"),
        flags=["--search-attribute", "Color=Keyword", "--search-attribute", "Size=Int"],
    )
    try:
        asyncio.run(server.start())
        yield server
        assert server.process and server.process.poll() is None, f"it ended:\n{server.log.read_text()}"
        # Temporal's own has no handler for the signal.
        assert server.stop() == 0 or BINARY.name != "holdfast"
    finally:
        server.kill()


@pytest.fixture
async def client(shared: Server) -> AsyncIterator[Client]:
    yield await Client.connect(shared.address)


@pytest.fixture
def queue() -> str:
    """A task queue of the test's own; also good as a workflow id."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def port_7233() -> int:
    """The port that is written into the application's files."""
    assert is_free(7233), "port 7233 is taken, and the application's files name it: stop who listens there"
    return 7233


@pytest.fixture
async def durable(tmp_path: Path) -> AsyncIterator[Server]:
    """A server of the test's own, which may be killed and started on its data again."""
    server = Server(tmp_path, data=True)
    yield server
    server.kill()


@pytest.fixture
async def durable_7233(tmp_path: Path, port_7233: int) -> AsyncIterator[Server]:
    server = Server(tmp_path, port=port_7233, data=True)
    yield server
    server.kill()
