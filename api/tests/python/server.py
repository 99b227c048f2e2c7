"""A server as a child process, and a worker program as another."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from temporalio.client import Client

HERE = Path(__file__).parent
BINARY = Path(os.environ.get("HOLDFAST_BIN", HERE.parents[2] / "target/release/holdfast")).resolve()
PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Server:
    """`holdfast server start-dev`. With `data` its state outlives it."""

    def __init__(self, folder: Path, port: int | None = None, data: bool = False, flags: list[str] = []):
        self.port = port or free_port()
        self.address = f"localhost:{self.port}"
        self.log = folder / "server.log"
        self.command = [BINARY, "server", "start-dev", "--headless", "--port", str(self.port), *flags]
        if data:
            self.command += ["--db-filename", str(folder / "data")]
        self.process: subprocess.Popen | None = None

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def start(self) -> Client:
        """Starts it and waits until it serves."""
        self.spawn()
        return await self.serving()

    async def serving(self) -> Client:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process and self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
            try:
                return await Client.connect(self.address)
            except RuntimeError as error:
                assert time.monotonic() < deadline, f"does not serve: {error}\n{self.log.read_text()}"

    def kill(self) -> None:
        """As SIGKILL does it: at once."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """As Ctrl-C does it."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Program:
    """A Python program beside the tests: a worker or a starter, with what it prints.

    Only what it prints: the SDK's threads may outlive the interpreter by a moment, and then that complains."""

    def __init__(self, *arguments: str):
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
        )

    def finish(self) -> str:
        """Waits for its end and returns what it printed."""
        self.process.wait(PATIENCE)
        return self.text()

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.output.close()
