"""Waiting for something to become true, with a limit."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], what: str, patience: float = 20.0) -> T:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + patience
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        await asyncio.sleep(0.02)
    return answer
