"""What a client can ask for: ids and their policies, description, lists and counts, memo and search attributes."""

import asyncio
from datetime import datetime, timedelta, timezone

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

import flows
from history import kinds
from server import BINARY
from waiting import until

COLOR, SIZE = SearchAttributeKey.for_keyword("Color"), SearchAttributeKey.for_int("Size")


def worker(client: Client, queue: str) -> Worker:
    return Worker(client, task_queue=queue, workflows=flows.WORKFLOWS, activities=flows.ACTIVITIES)


async def test_health(client: Client) -> None:
    assert await client.service_client.check_health()


async def test_an_open_id_is_refused(client: Client, queue: str) -> None:
    first = await client.start_workflow(flows.Collect.run, id=queue, task_queue=queue)
    with pytest.raises(WorkflowAlreadyStartedError) as error:
        await client.start_workflow(flows.Collect.run, id=queue, task_queue=queue)
    assert error.value.run_id == first.first_execution_run_id


async def test_an_open_id_is_joined(client: Client, queue: str) -> None:
    first, second = [
        await client.start_workflow(
            flows.Collect.run,
            id=queue,
            task_queue=queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        for _ in range(2)
    ]
    assert first.first_execution_run_id == second.first_execution_run_id


async def test_an_open_id_is_taken_over(client: Client, queue: str) -> None:
    first, second = [
        await client.start_workflow(
            flows.Collect.run,
            id=queue,
            task_queue=queue,
            id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
        )
        for _ in range(2)
    ]
    assert first.first_execution_run_id != second.first_execution_run_id
    run = client.get_workflow_handle(queue, run_id=first.first_execution_run_id)
    assert (await run.describe()).status == WorkflowExecutionStatus.TERMINATED


@pytest.mark.parametrize(
    "policy, ended_well, again",
    [
        (WorkflowIDReusePolicy.ALLOW_DUPLICATE, True, True),
        (WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, True, False),
        (WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, False, True),
        (WorkflowIDReusePolicy.REJECT_DUPLICATE, True, False),
        (WorkflowIDReusePolicy.REJECT_DUPLICATE, False, False),
    ],
)
async def test_a_closed_id(
    client: Client, queue: str, policy: WorkflowIDReusePolicy, ended_well: bool, again: bool
) -> None:
    if ended_well:
        async with worker(client, queue):
            await client.execute_workflow(flows.Echo.run, 1, id=queue, task_queue=queue)
    else:
        handle = await client.start_workflow(flows.Echo.run, 1, id=queue, task_queue=queue)
        await handle.terminate()
    start = client.start_workflow(flows.Echo.run, 2, id=queue, task_queue=queue, id_reuse_policy=policy)
    if again:
        await start
    else:
        with pytest.raises(WorkflowAlreadyStartedError):
            await start


async def test_describe(client: Client, queue: str) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    handle = await client.start_workflow(
        flows.Collect.run, id=queue, task_queue=queue, execution_timeout=timedelta(hours=1)
    )
    found = await handle.describe()
    assert (found.id, found.run_id) == (queue, handle.first_execution_run_id)
    assert (found.workflow_type, found.task_queue) == ("Collect", queue)
    assert (found.status, found.close_time) == (WorkflowExecutionStatus.RUNNING, None)
    assert before < found.start_time < datetime.now(timezone.utc) + timedelta(seconds=1)
    with pytest.raises(RPCError) as error:
        await client.get_workflow_handle(f"{queue}-not").describe()
    assert error.value.status == RPCStatusCode.NOT_FOUND


async def test_memo_and_search_attributes(client: Client, queue: str) -> None:
    given = TypedSearchAttributes([SearchAttributePair(COLOR, "blue"), SearchAttributePair(SIZE, 7)])
    handle = await client.start_workflow(
        flows.Collect.run,
        id=queue,
        task_queue=queue,
        memo={"note": "remember", "deep": {"list": [1, 2]}},
        search_attributes=given,
    )
    found = await handle.describe()
    assert await found.memo() == {"note": "remember", "deep": {"list": [1, 2]}}
    assert found.typed_search_attributes[COLOR] == "blue"
    assert found.typed_search_attributes[SIZE] == 7


async def test_an_unknown_search_attribute_is_refused(client: Client, queue: str) -> None:
    unknown = SearchAttributePair(SearchAttributeKey.for_keyword("NobodyMadeThis"), "x")
    with pytest.raises(RPCError) as error:
        await client.start_workflow(
            flows.Collect.run, id=queue, task_queue=queue, search_attributes=TypedSearchAttributes([unknown])
        )
    assert error.value.status == RPCStatusCode.INVALID_ARGUMENT


async def settled(client: Client, query: str, count: int) -> int:
    """Temporal's own lists lag; ours must not, and then the first answer is the last."""
    async def counted() -> bool:
        return (await client.count_workflows(query)).count == count

    if BINARY.name != "holdfast":
        await until(counted, f"{count} by {query}")
    return (await client.count_workflows(query)).count


async def test_list_and_count(client: Client, queue: str) -> None:
    async with worker(client, queue):
        for number in range(3):
            await client.execute_workflow(flows.Echo.run, number, id=f"{queue}-{number}", task_queue=queue)
    for number in range(3, 5):
        await client.start_workflow(flows.Collect.run, id=f"{queue}-{number}", task_queue=queue)
    mine = f"TaskQueue = '{queue}'"
    assert await settled(client, mine, 5) == 5
    assert await settled(client, f"{mine} AND ExecutionStatus = 'Running'", 2) == 2
    assert await settled(client, f"{mine} AND WorkflowType = 'Echo'", 3) == 3
    assert await settled(client, f"WorkflowId = '{queue}-4'", 1) == 1
    listed = [found async for found in client.list_workflows(mine, page_size=2)]
    assert sorted(found.id for found in listed) == [f"{queue}-{number}" for number in range(5)]
    # Open ones first, the newest first.
    assert [found.id for found in listed][:2] == [f"{queue}-4", f"{queue}-3"]
    assert {found.status for found in listed[2:]} == {WorkflowExecutionStatus.COMPLETED}


async def test_a_bad_filter_is_refused(client: Client) -> None:
    with pytest.raises(RPCError) as error:
        await client.count_workflows("Nonsense = = 3")
    assert error.value.status == RPCStatusCode.INVALID_ARGUMENT


async def test_results_of_every_kind(client: Client, queue: str) -> None:
    values = [None, True, 3.5, "ü€", ["a", {"b": None}], "long" * 50_000]
    async with worker(client, queue):
        runs = [
            client.execute_workflow("Echo", value, id=f"{queue}-{number}", task_queue=queue)
            for number, value in enumerate(values)
        ]
        assert await asyncio.gather(*runs) == values


async def test_many_wait_for_one_result(client: Client, queue: str) -> None:
    handle = await client.start_workflow(flows.Collect.run, id=queue, task_queue=queue)
    waiting = [asyncio.create_task(client.get_workflow_handle(queue).result()) for _ in range(10)]
    async with worker(client, queue):
        await handle.signal(flows.Collect.add, "done")
        assert await asyncio.gather(*waiting) == [["done"]] * 10
    assert (await kinds(handle))[-1] == "WORKFLOW_EXECUTION_COMPLETED"
