"""What a workflow can do: signals, timers, cancellation, markers, failing; and its worker coming and going."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, TimeoutError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

import flows
from history import events, kind, kinds
from server import Server
from waiting import until


def worker(client: Client, queue: str, **options: object) -> Worker:
    return Worker(client, task_queue=queue, workflows=flows.WORKFLOWS, activities=flows.ACTIVITIES, **options)


async def has(handle: WorkflowHandle, *names: str) -> bool:
    found = await kinds(handle, closed=False)
    return all(name in found for name in names)


async def test_hello(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Hello.run, "Alice", id=queue, task_queue=queue)
        assert await handle.result() == "Hello, Alice!"
    assert (await kinds(handle))[-1] == "WORKFLOW_EXECUTION_COMPLETED"


async def test_signals_arrive_once_and_in_order(client: Client, queue: str) -> None:
    handle = await client.start_workflow(flows.Collect.run, id=queue, task_queue=queue)
    sent = [str(number) for number in range(20)]
    for text in sent[:10]:
        await handle.signal(flows.Collect.add, text)
    async with worker(client, queue):
        for text in sent[10:]:
            await handle.signal(flows.Collect.add, text)
        await handle.signal(flows.Collect.add, "done")
        assert await handle.result() == [*sent, "done"]
    assert (await kinds(handle)).count("WORKFLOW_EXECUTION_SIGNALED") == 21


async def test_signal_with_start(client: Client, queue: str) -> None:
    async def send(text: str) -> WorkflowHandle:
        return await client.start_workflow(
            flows.Collect.run, id=queue, task_queue=queue, start_signal="add", start_signal_args=[text]
        )

    first, second = await send("one"), await send("done")
    assert first.first_execution_run_id == second.first_execution_run_id
    async with worker(client, queue):
        assert await first.result() == ["one", "done"]


async def test_signal_of_nobody(client: Client, queue: str) -> None:
    with pytest.raises(RPCError) as error:
        await client.get_workflow_handle(queue).signal("add", "text")
    assert error.value.status == RPCStatusCode.NOT_FOUND


@pytest.mark.parametrize("seconds", [0.05, 1.0])
async def test_timer_fires_not_early_and_promptly(client: Client, queue: str, seconds: float) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Sleep.run, seconds, id=queue, task_queue=queue)
        assert await handle.result() >= seconds
    found = {kind(event): event.event_time.ToDatetime() for event in await events(handle)}
    late = found["TIMER_FIRED"] - found["TIMER_STARTED"] - timedelta(seconds=seconds)
    assert timedelta() <= late < timedelta(seconds=1)


async def test_the_slower_timer_is_cancelled(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Race.run, id=queue, task_queue=queue)
        assert await handle.result() == "fast"
    assert (await kinds(handle)).count("TIMER_FIRED") == 1


async def test_cancellation_is_asked_for_and_cleaned_up_after(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Forever.run, id=queue, task_queue=queue)
        await until(lambda: has(handle, "TIMER_STARTED"), "the timer")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as error:
            await handle.result()
    assert isinstance(error.value.cause, CancelledError)
    found = await kinds(handle)
    assert "WORKFLOW_EXECUTION_CANCEL_REQUESTED" in found and "ACTIVITY_TASK_COMPLETED" in found
    assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED


async def test_terminate(client: Client, queue: str) -> None:
    handle = await client.start_workflow(flows.Forever.run, id=queue, task_queue=queue)
    await handle.terminate("detail", reason="enough")
    with pytest.raises(WorkflowFailureError) as error:
        await handle.result()
    assert isinstance(error.value.cause, TerminatedError)
    last = (await events(handle))[-1].workflow_execution_terminated_event_attributes
    assert last.reason == "enough"
    with pytest.raises(RPCError) as again:
        await handle.terminate()
    assert again.value.status == RPCStatusCode.NOT_FOUND


async def test_terminated_under_a_running_worker(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Forever.run, id=queue, task_queue=queue)
        await until(lambda: has(handle, "TIMER_STARTED"), "the timer")
        await handle.terminate()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        # The worker is none the worse for it.
        hello = await client.execute_workflow(flows.Hello.run, "again", id=f"{queue}-2", task_queue=queue)
        assert hello == "Hello, again!"


async def test_markers_are_found_again_at_replay(client: Client, queue: str) -> None:
    async with worker(client, queue, max_cached_workflows=0):
        handle = await client.start_workflow(flows.Marked.run, id=queue, task_queue=queue)
        assert await handle.result() == "Hello, local!"
    assert (await kinds(handle)).count("MARKER_RECORDED") == 2


async def test_failure_reaches_the_client(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Fails.run, id=queue, task_queue=queue)
        with pytest.raises(WorkflowFailureError) as error:
            await handle.result()
    cause = error.value.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.message, cause.type, list(cause.details)) == ("broken", "Mine", ["detail"])
    assert (await handle.describe()).status == WorkflowExecutionStatus.FAILED


async def test_a_bug_fails_the_task_and_not_the_workflow(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.StumblesTwice.run, id=queue, task_queue=queue)
        assert await handle.result() == "mended"
    # Later attempts of one task leave no events of their own.
    assert (await kinds(handle)).count("WORKFLOW_TASK_FAILED") == 1


@pytest.mark.parametrize("which", ["run_timeout", "execution_timeout"])
async def test_workflow_timeout(client: Client, queue: str, which: str) -> None:
    limit = {which: timedelta(seconds=1)}
    handle = await client.start_workflow(flows.Forever.run, id=queue, task_queue=queue, **limit)
    with pytest.raises(WorkflowFailureError) as error:
        await handle.result()
    assert isinstance(error.value.cause, TimeoutError)
    assert (await handle.describe()).status == WorkflowExecutionStatus.TIMED_OUT


async def test_no_worker_within_the_task_timeout(client: Client, queue: str) -> None:
    """A task whose worker went away without a word is given to the next after its timeout."""
    handle = await client.start_workflow(
        flows.Hello.run, "late", id=queue, task_queue=queue, task_timeout=timedelta(seconds=1)
    )
    poll = PollWorkflowTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=queue), identity="lost")
    task = await client.workflow_service.poll_workflow_task_queue(poll, timeout=timedelta(seconds=20))
    assert task.workflow_execution.workflow_id == queue
    async with worker(client, queue):
        assert await handle.result() == "Hello, late!"
    assert (await kinds(handle)).count("WORKFLOW_TASK_TIMED_OUT") == 1


async def test_the_next_worker_takes_over_what_was_sticky(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Collect.run, id=queue, task_queue=queue)
        await handle.signal(flows.Collect.add, "first worker")
        await until(lambda: has(handle, "WORKFLOW_TASK_COMPLETED"), "the first worker's task")
    async with worker(client, queue):
        await handle.signal(flows.Collect.add, "second worker")
        await handle.signal(flows.Collect.add, "done")
        assert await handle.result() == ["first worker", "second worker", "done"]


async def test_without_a_cache_every_task_is_a_replay(client: Client, queue: str) -> None:
    async with worker(client, queue, max_cached_workflows=0):
        handle = await client.start_workflow(flows.Collect.run, id=queue, task_queue=queue)
        for number in range(5):
            await handle.signal(flows.Collect.add, str(number))
            await until(lambda: settled(handle), "the answer to what was sent")
        await handle.signal(flows.Collect.add, "done")
        assert (await handle.result())[-1] == "done"


async def settled(handle: WorkflowHandle) -> bool:
    """Whether a task that saw everything so far is answered."""
    return (await kinds(handle, closed=False))[-1] == "WORKFLOW_TASK_COMPLETED"


async def test_fifty_at_once(client: Client, queue: str) -> None:
    async with worker(client, queue):
        starts = [
            client.start_workflow(flows.Hello.run, str(number), id=f"{queue}-{number}", task_queue=queue)
            for number in range(50)
        ]
        handles = await asyncio.gather(*starts)
        results = await asyncio.gather(*(handle.result() for handle in handles))
    assert results == [f"Hello, {number}!" for number in range(50)]
    for handle in handles:
        assert (await kinds(handle)).count("ACTIVITY_TASK_COMPLETED") == 1


async def test_two_workers_share_a_queue(client: Client, shared: Server, queue: str) -> None:
    # The SDK allows a client one worker per queue.
    other = await Client.connect(shared.address)
    async with worker(client, queue, identity="one"), worker(other, queue, identity="two"):
        runs = [
            client.execute_workflow(flows.Hello.run, str(number), id=f"{queue}-{number}", task_queue=queue)
            for number in range(40)
        ]
        await asyncio.gather(*runs)
    who = set()
    for number in range(40):
        for event in await events(client.get_workflow_handle(f"{queue}-{number}")):
            if kind(event) == "ACTIVITY_TASK_STARTED":
                who.add(event.activity_task_started_event_attributes.identity)
    assert who == {"one", "two"}


@pytest.mark.timeout(30)
async def test_an_answer_too_large_to_send_ends_the_run(client: Client, queue: str) -> None:
    """The worker sees by the server's text that no attempt can succeed, and says so."""
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Huge.run, id=queue, task_queue=queue)
        with pytest.raises(WorkflowFailureError) as error:
            await handle.result()
    assert isinstance(error.value.cause, TerminatedError)
    assert str(error.value.cause) == "GrpcMessageTooLarge"
    assert (await kinds(handle))[-2:] == ["WORKFLOW_TASK_FAILED", "WORKFLOW_EXECUTION_TERMINATED"]


@pytest.mark.timeout(30)
async def test_an_input_too_large_to_send_is_refused_at_once(client: Client, queue: str) -> None:
    with pytest.raises(RPCError) as error:
        await client.start_workflow(flows.Echo.run, "x" * 4_500_000, id=queue, task_queue=queue)
    assert error.value.status == RPCStatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.value.message
