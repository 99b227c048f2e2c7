"""A worker program whose activity takes 3 s under a heartbeat timeout of 1 s. Argument: the server's address."""

import asyncio
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "slow"
STEPS = 30


@activity.defn
async def slow_hello(name: str) -> str:
    # What an earlier attempt has done need not be done again, but 3 s it takes.
    for step in range(STEPS):
        activity.heartbeat(activity.info().attempt, step)
        await asyncio.sleep(3 / STEPS)
    return f"Hello, {name}, at attempt {activity.info().attempt}!"


@workflow.defn
class SlowHello:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            slow_hello,
            name,
            start_to_close_timeout=timedelta(seconds=20),
            heartbeat_timeout=timedelta(seconds=1),
        )


async def main() -> None:
    client = await Client.connect(sys.argv[1])
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[SlowHello],
        activities=[slow_hello],
        # How long a task waits for the worker that knows the workflow before another may have it.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
