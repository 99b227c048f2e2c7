"""What every history must be."""

from collections import Counter
from datetime import timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

CLOSES = {"COMPLETED", "FAILED", "TIMED_OUT", "CANCELED", "TERMINATED", "CONTINUED_AS_NEW"}
CLOSES = {f"WORKFLOW_EXECUTION_{end}" for end in CLOSES}
OUTCOMES = ("COMPLETED", "FAILED", "TIMED_OUT", "CANCELED", "FIRED")


def kind(event: HistoryEvent) -> str:
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


async def events(handle: WorkflowHandle, closed: bool = True) -> list[HistoryEvent]:
    """The history of the handle's run, checked: ids without a gap, one close event, which is the last, at most one
    start and one outcome of each activity, timer and workflow task."""
    found = list((await handle.fetch_history()).events)
    kinds = [kind(event) for event in found]
    assert [event.event_id for event in found] == list(range(1, len(found) + 1)), kinds
    assert kinds[0] == "WORKFLOW_EXECUTION_STARTED"
    assert [name for name in kinds if name in CLOSES] == ([kinds[-1]] if closed else []), kinds
    twice = {of: count for of, count in Counter(filter(None, map(_part, found))).items() if count > 1}
    assert not twice, f"{twice} in {kinds}"
    return found


def _part(event: HistoryEvent) -> tuple[str, int] | None:
    name = kind(event)
    if not name.startswith(("ACTIVITY_TASK", "WORKFLOW_TASK", "TIMER")):
        return None
    attributes = getattr(event, str(event.WhichOneof("attributes")))
    if name.endswith(OUTCOMES):
        return "outcome", attributes.started_event_id if name.startswith("TIMER") else attributes.scheduled_event_id
    if name.endswith("_TASK_STARTED"):
        return "start", attributes.scheduled_event_id
    return None


async def kinds(handle: WorkflowHandle, closed: bool = True) -> list[str]:
    return [kind(event) for event in await events(handle, closed)]


async def length(handle: WorkflowHandle) -> timedelta:
    """From the first event to the last."""
    all_events = await events(handle)
    return all_events[-1].event_time.ToDatetime() - all_events[0].event_time.ToDatetime()
