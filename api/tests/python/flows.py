"""The workflows and activities of the tests."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, TimeoutError

SHORT = timedelta(seconds=10)
ONCE = RetryPolicy(maximum_attempts=1)
AT_ONCE = RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0)

# What an activity met, by the id of its workflow: activities and tests live in one process.
attempts: dict[str, list[object]] = {}
# Set by a test to let the activities of a workflow go on; by the id of the workflow.
gates: dict[str, asyncio.Event] = {}


def _me() -> str:
    me = activity.info().workflow_id
    assert me
    return me


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@activity.defn
async def fail_until(success: int) -> int:
    attempt = activity.info().attempt
    if attempt < success:
        raise ApplicationError(f"attempt {attempt}", type="NotYet")
    return attempt


@activity.defn
async def fail_for_good() -> None:
    raise ApplicationError("no use", "detail", type="Hopeless", non_retryable=True)


@activity.defn
async def wait_for_gate() -> str:
    """Neither answers nor heartbeats before the test says so."""
    attempts.setdefault(_me(), []).append(activity.info().attempt)
    await gates[_me()].wait()
    return "gate"


@activity.defn
async def beat_until_cancelled() -> str:
    attempts.setdefault(_me(), []).append("began")
    try:
        while True:
            activity.heartbeat("alive")
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        attempts[_me()].append("cancelled")
        raise


@activity.defn
async def count_with_heartbeats(end: int) -> int:
    """Counts on from what the attempt before has reported, and fails at half the way."""
    info = activity.info()
    begin = info.heartbeat_details[0] if info.heartbeat_details else 0
    attempts.setdefault(_me(), []).append(begin)
    for number in range(begin, end):
        if number == end // 2 and info.attempt == 1:
            raise ApplicationError("half way")
        activity.heartbeat(number + 1)
    return end


@activity.defn
async def complete_elsewhere() -> str:
    info = activity.info()
    attempts.setdefault(_me(), []).append((info.task_token, info.activity_id))
    activity.raise_complete_async()


@workflow.defn
class Hello:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(greet, name, start_to_close_timeout=SHORT)


@workflow.defn
class Echo:
    """Touches nothing but its argument."""

    @workflow.run
    async def run(self, value: Any) -> Any:
        return value


@workflow.defn
class Collect:
    """Collects what is sent until it gets `done`."""

    def __init__(self) -> None:
        self.got: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: "done" in self.got)
        return self.got

    @workflow.signal
    def add(self, text: str) -> None:
        self.got.append(text)


@workflow.defn
class Sleep:
    @workflow.run
    async def run(self, seconds: float) -> float:
        start = workflow.time()
        await asyncio.sleep(seconds)
        return workflow.time() - start


@workflow.defn
class Race:
    """Two timers; the loser is cancelled."""

    @workflow.run
    async def run(self) -> str:
        slow, fast = asyncio.create_task(self.after(60, "slow")), asyncio.create_task(self.after(0.1, "fast"))
        winner = await workflow.wait([slow, fast], return_when=asyncio.FIRST_COMPLETED)
        slow.cancel()
        return next(iter(winner[0])).result()

    async def after(self, seconds: float, name: str) -> str:
        await asyncio.sleep(seconds)
        return name


@workflow.defn
class Forever:
    """Cleans up when it is cancelled."""

    @workflow.run
    async def run(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await workflow.execute_activity(greet, "cleaned", start_to_close_timeout=SHORT)
            raise


@workflow.defn
class CancelActivity:
    """Cancels its own activity on a signal and tells how that ended."""

    def __init__(self) -> None:
        self.stop = False

    @workflow.run
    async def run(self) -> str:
        running = workflow.start_activity(
            beat_until_cancelled,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=2),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: self.stop)
        running.cancel()
        try:
            await running
        except ActivityError as error:
            return type(error.cause).__name__
        return "not cancelled"

    @workflow.signal
    def cancel(self) -> None:
        self.stop = True


@workflow.defn
class Retry:
    @workflow.run
    async def run(self, success: int) -> int:
        return await workflow.execute_activity(
            fail_until, success, start_to_close_timeout=SHORT, retry_policy=AT_ONCE
        )


@workflow.defn
class Limited:
    """An activity that never succeeds, with at most so many attempts; returns its last failure."""

    @workflow.run
    async def run(self, limit: int) -> str:
        policy = RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=limit)
        try:
            await workflow.execute_activity(
                fail_until, 1000, start_to_close_timeout=SHORT, retry_policy=policy
            )
        except ActivityError as error:
            return f"{error.retry_state.name if error.retry_state else None}: {error.cause}"
        return "succeeded"


@workflow.defn
class Hopeless:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(fail_for_good, start_to_close_timeout=SHORT)


@workflow.defn
class Timeouts:
    """Runs into the named timeout of an activity and returns the one that the failure names."""

    @workflow.run
    async def run(self, which: str) -> str:
        timeouts = {"start_to_close_timeout": timedelta(seconds=60)}
        if which == "schedule_to_close_timeout":
            # Attempts that end early are tried again until it is over.
            timeouts["start_to_close_timeout"] = timedelta(milliseconds=300)
        timeouts[which] = timedelta(milliseconds=700)
        queue = "nobody" if which == "schedule_to_start_timeout" else workflow.info().task_queue
        policy = None if which == "schedule_to_close_timeout" else ONCE
        try:
            await workflow.execute_activity(wait_for_gate, task_queue=queue, retry_policy=policy, **timeouts)
        except ActivityError as error:
            assert isinstance(error.cause, TimeoutError), error.cause
            return error.cause.type.name.lower() if error.cause.type else "none"
        return "no timeout"


@workflow.defn
class StartToCloseRetried:
    """An attempt that is too slow is tried again."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            wait_for_gate, start_to_close_timeout=timedelta(milliseconds=400), retry_policy=AT_ONCE
        )


@workflow.defn
class Resume:
    @workflow.run
    async def run(self, end: int) -> int:
        return await workflow.execute_activity(
            count_with_heartbeats,
            end,
            start_to_close_timeout=SHORT,
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=AT_ONCE,
        )


@workflow.defn
class Elsewhere:
    @workflow.run
    async def run(self) -> str:
        try:
            return await workflow.execute_activity(
                complete_elsewhere,
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=30),
                retry_policy=ONCE,
            )
        except ActivityError as error:
            cause = error.cause
            return "cancelled" if isinstance(cause, CancelledError) else f"failed: {cause}"


@workflow.defn
class Marked:
    """Leaves a marker of each kind: a patch and a local activity."""

    @workflow.run
    async def run(self) -> str:
        assert workflow.patched("new-way")
        return await workflow.execute_local_activity(greet, "local", start_to_close_timeout=SHORT)


@workflow.defn
class Fails:
    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("broken", "detail", type="Mine")


task_failures: dict[str, int] = {}


@workflow.defn(sandboxed=False)
class StumblesTwice:
    """Code with a bug fails its workflow task; once it is mended the workflow goes on."""

    @workflow.run
    async def run(self) -> str:
        me = workflow.info().workflow_id
        task_failures[me] = task_failures.get(me, 0) + 1
        if task_failures[me] <= 2:
            raise RuntimeError("a bug")
        return "mended"


@workflow.defn
class Huge:
    """Every command is small enough by itself; the worker's answer is larger than any message may be."""

    @workflow.run
    async def run(self) -> None:
        name = "x" * 1_500_000
        greetings = [
            workflow.execute_activity(greet, name, start_to_close_timeout=SHORT) for _ in range(4)
        ]
        await asyncio.gather(*greetings)


WORKFLOWS = [
    Hello, Echo, Collect, Sleep, Race, Forever, CancelActivity, Retry, Limited, Hopeless, Timeouts,
    StartToCloseRetried, Resume, Elsewhere, Marked, Fails, StumblesTwice, Huge,
]  # fmt: skip
ACTIVITIES = [
    greet, fail_until, fail_for_good, wait_for_gate, beat_until_cancelled, count_with_heartbeats,
    complete_elsewhere,
]  # fmt: skip
