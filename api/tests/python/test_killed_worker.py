"""Workers that die: what they had is given to the next."""

from temporalio.client import Client, WorkflowHandle

from history import events, kind, kinds
from server import Program, Server
from variants.slow_worker import QUEUE, SlowHello
from waiting import until


async def attempt_beats(handle: WorkflowHandle, attempt: int) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    return any(it.attempt == attempt and it.HasField("heartbeat_details") for it in pending)


async def test_killed_in_its_activity_and_started_again(client: Client, shared: Server, queue: str) -> None:
    with Program("variants.slow_worker", shared.address):
        handle = await client.start_workflow(SlowHello.run, "Alice", id=queue, task_queue=QUEUE)
        await until(lambda: attempt_beats(handle, 1), "the first attempt's heartbeat")
    with Program("variants.slow_worker", shared.address):
        assert await handle.result() == "Hello, Alice, at attempt 2!"
    found = await events(handle)
    started = [event for event in found if kind(event) == "ACTIVITY_TASK_STARTED"]
    # Attempts that are tried again leave no events.
    assert [event.activity_task_started_event_attributes.attempt for event in started] == [2]
    assert "heartbeat" in started[0].activity_task_started_event_attributes.last_failure.message.lower()
    assert [kind(event) for event in found].count("ACTIVITY_TASK_COMPLETED") == 1


async def test_server_and_worker_killed_together(durable: Server) -> None:
    client = await durable.start()
    with Program("variants.slow_worker", durable.address):
        handle = await client.start_workflow(SlowHello.run, "Bob", id="both", task_queue=QUEUE)
        await until(lambda: attempt_beats(handle, 1), "the first attempt's heartbeat")
        durable.kill()
    client = await durable.start()
    handle = client.get_workflow_handle("both")
    with Program("variants.slow_worker", durable.address):
        assert await handle.result() == "Hello, Bob, at attempt 2!"
    assert (await kinds(handle)).count("ACTIVITY_TASK_COMPLETED") == 1


async def test_an_activity_outlives_the_server(durable: Server) -> None:
    """The server dies under a running activity: its answer still counts, or it is tried again."""
    client = await durable.start()
    with Program("variants.slow_worker", durable.address):
        handle = await client.start_workflow(SlowHello.run, "Eve", id="outlives", task_queue=QUEUE)
        await until(lambda: attempt_beats(handle, 1), "the first attempt's heartbeat")
        durable.kill()
        client = await durable.start()
        handle = client.get_workflow_handle("outlives")
        assert (await handle.result()).startswith("Hello, Eve, at attempt ")
    assert (await kinds(handle)).count("ACTIVITY_TASK_COMPLETED") == 1
