"""What an activity can do: fail and be tried again, time out in four ways, report, be cancelled, be completed from
elsewhere."""

import asyncio

import pytest
from temporalio.client import AsyncActivityHandle, Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

import flows
from history import events, kind, kinds
from waiting import until


def worker(client: Client, queue: str) -> Worker:
    return Worker(client, task_queue=queue, workflows=flows.WORKFLOWS, activities=flows.ACTIVITIES)


async def test_retries_until_success(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Retry.run, 3, id=queue, task_queue=queue)
        assert await handle.result() == 3
    started = [event for event in await events(handle) if kind(event) == "ACTIVITY_TASK_STARTED"]
    assert len(started) == 1
    attributes = started[0].activity_task_started_event_attributes
    assert attributes.attempt == 3
    assert attributes.last_failure.message == "attempt 2"


async def test_at_most_so_many_attempts(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Limited.run, 2, id=queue, task_queue=queue)
        assert await handle.result() == "MAXIMUM_ATTEMPTS_REACHED: NotYet: attempt 2"
    assert (await kinds(handle)).count("ACTIVITY_TASK_FAILED") == 1


async def test_a_failure_for_good_is_not_tried_again(client: Client, queue: str) -> None:
    async with worker(client, queue):
        with pytest.raises(WorkflowFailureError) as error:
            await client.execute_workflow(flows.Hopeless.run, id=queue, task_queue=queue)
    activity = error.value.cause
    assert isinstance(activity, ActivityError) and isinstance(activity.cause, ApplicationError)
    assert (activity.cause.type, list(activity.cause.details)) == ("Hopeless", ["detail"])


@pytest.mark.parametrize("which", ["schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat"])
async def test_timeout(client: Client, queue: str, which: str) -> None:
    flows.gates[queue] = asyncio.Event()
    async with worker(client, queue):
        handle = await client.start_workflow(
            flows.Timeouts.run, f"{which}_timeout", id=queue, task_queue=queue
        )
        named = await handle.result()
        flows.gates[queue].set()
    # A total that runs out between attempts, or in one, is told by either name.
    expected = {which, "start_to_close"} if which == "schedule_to_close" else {which}
    assert named in expected
    assert (await kinds(handle)).count("ACTIVITY_TASK_TIMED_OUT") == 1


async def test_a_slow_attempt_is_tried_again(client: Client, queue: str) -> None:
    flows.gates[queue] = asyncio.Event()
    async with worker(client, queue):
        handle = await client.start_workflow(flows.StartToCloseRetried.run, id=queue, task_queue=queue)
        await until(lambda: attempts(queue, 2), "the second attempt")
        flows.gates[queue].set()
        assert await handle.result() == "gate"
    assert (await kinds(handle)).count("ACTIVITY_TASK_COMPLETED") == 1


async def test_the_next_attempt_gets_what_was_reported(client: Client, queue: str) -> None:
    async with worker(client, queue):
        assert await client.execute_workflow(flows.Resume.run, 10, id=queue, task_queue=queue) == 10
    assert flows.attempts[queue] == [0, 5]


async def test_cancelled_by_its_workflow(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.CancelActivity.run, id=queue, task_queue=queue)
        await until(lambda: attempts(queue, 1), "the activity")
        await handle.signal(flows.CancelActivity.cancel)
        assert await handle.result() == "CancelledError"
    assert flows.attempts[queue] == ["began", "cancelled"]
    found = await kinds(handle)
    assert "ACTIVITY_TASK_CANCEL_REQUESTED" in found and "ACTIVITY_TASK_CANCELED" in found


async def elsewhere(client: Client, queue: str, by: str) -> AsyncActivityHandle:
    """The handle of an activity whose function has returned without a result."""
    await until(lambda: attempts(queue, 1), "the activity")
    token, name = flows.attempts[queue][0]
    if by == "token":
        return client.get_async_activity_handle(task_token=token)
    return client.get_async_activity_handle(workflow_id=queue, run_id=None, activity_id=name)


@pytest.mark.parametrize("by", ["token", "id"])
async def test_completed_from_elsewhere(client: Client, queue: str, by: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Elsewhere.run, id=queue, task_queue=queue)
        activity = await elsewhere(client, queue, by)
        await activity.heartbeat("on it")
        await activity.complete("from elsewhere")
        assert await handle.result() == "from elsewhere"
        with pytest.raises(RPCError) as error:
            await activity.complete("twice")
        assert error.value.status == RPCStatusCode.NOT_FOUND
    assert (await kinds(handle)).count("ACTIVITY_TASK_COMPLETED") == 1


async def test_failed_from_elsewhere(client: Client, queue: str) -> None:
    async with worker(client, queue):
        handle = await client.start_workflow(flows.Elsewhere.run, id=queue, task_queue=queue)
        activity = await elsewhere(client, queue, "token")
        await activity.fail(ApplicationError("from elsewhere", non_retryable=True))
        assert await handle.result() == "failed: from elsewhere"


async def attempts(of: str, count: int) -> bool:
    return len(flows.attempts.get(of, [])) >= count
