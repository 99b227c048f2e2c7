//! One run, one worker and a clock over [`World`], for the tests of what commands make: short
//! inputs, and looks at the history that came of them.

use holdfast_proto::command::command::Attributes as Body;
use holdfast_proto::command::{
    CancelTimerCommandAttributes, Command, RecordMarkerCommandAttributes,
    RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes,
};
use holdfast_proto::common::{ActivityType, Payload, Payloads};
use holdfast_proto::decoded;
use holdfast_proto::enums::CommandType;
use holdfast_proto::failure::Failure;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;

use crate::change::Change;
use crate::ids::{EventId, Hlc};
use crate::input::{ActivityGrant, ActivityRef, Input, Reply, WorkflowTaskGrant};
use crate::live::Live;
use crate::reject::Rejection;
use crate::testing::{World, command, completion};
use crate::visibility::Kind;
use crate::workflow::State;

/// A second, as [`Hlc`] counts.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// What a decision answers.
pub(crate) type Answer = Result<Reply, Rejection>;

/// A run, its worker, and the time.
pub(crate) struct Rig {
    pub(crate) world: World,
}

impl Rig {
    /// A run that has just started, without timeouts.
    pub(crate) fn start() -> Rig {
        Rig::start_with(|_| ())
    }

    /// A run whose start is as `change` makes it.
    pub(crate) fn start_with(change: impl FnOnce(&mut rpc::StartWorkflowExecutionRequest)) -> Rig {
        let mut world = World::new();
        let kinds = Kind::ALL.map(|kind| (format!("Custom{kind}Field"), kind.value_type()));
        world.namespace.search_attributes = kinds.into();
        let mut request = world.start_request();
        request.workflow_task_timeout = seconds(10);
        change(&mut request);
        world.decide(Input::Start(Box::new(request))).expect("starts");
        Rig { world }
    }

    pub(crate) fn run(&self) -> &Live {
        self.world.live()
    }

    pub(crate) fn state(&self) -> &State {
        self.world.state()
    }

    pub(crate) fn decide(&mut self, input: Input) -> Answer {
        self.world.decide(input)
    }

    /// Lets time pass: starts become durable as within 20 ms, and every deadline on the way is met.
    pub(crate) fn pass(&mut self, nanos: u64) {
        let end = Hlc(self.world.now.0 + nanos);
        self.world.flush();
        while let Some(due) = self.run().rows.deadline.filter(|due| *due <= end) {
            self.world.due();
            assert_ne!(self.run().rows.deadline, Some(due), "a deadline is met once");
        }
        self.world.now = self.world.now.max(end);
    }

    /// Answers a workflow task.
    pub(crate) fn complete(
        &mut self,
        task: &WorkflowTaskGrant,
        commands: Vec<Command>,
        force: bool,
    ) -> Answer {
        let mut request = completion(commands);
        request.force_create_new_workflow_task = force;
        self.decide(Input::WorkflowTaskCompleted {
            token: task.token.clone(),
            request: Box::new(request),
        })
    }

    /// Polls the workflow task and answers it with these commands.
    pub(crate) fn turn(&mut self, commands: Vec<Command>) -> Answer {
        let task = self.world.poll();
        self.complete(&task, commands, false)
    }

    /// As [`Rig::turn`], and holds the next workflow task.
    pub(crate) fn turn_and_hold(&mut self, commands: Vec<Command>) -> WorkflowTaskGrant {
        let task = self.world.poll();
        self.complete(&task, commands, true).expect("completes");
        self.world.poll()
    }

    /// The text of the refusal that commands get.
    pub(crate) fn refused(&mut self, commands: Vec<Command>) -> String {
        message(self.turn(commands))
    }

    /// The first activity task that waits and whose time has come.
    pub(crate) fn poll_activity(&mut self) -> Option<ActivityGrant> {
        let (run, now) = (self.run(), self.world.now);
        let mut rows = run.rows.activities.values();
        let row = rows.find(|r| r.at <= now && !run.overlay.grants.contains_key(&r.scheduled))?;
        let (scheduled, stamp) = (row.scheduled, row.stamp);
        self.grant(scheduled, stamp)
    }

    /// Offers one attempt to the worker; `None` when it is gone.
    pub(crate) fn grant(&mut self, scheduled: EventId, stamp: u32) -> Option<ActivityGrant> {
        let mut row = self.run().rows.activities.get(&scheduled)?.clone();
        row.stamp = stamp;
        match self.world.poll_as(&row, "worker") {
            Some(Reply::ActivityTask(task)) => Some(*task),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn complete_activity(&mut self, task: &ActivityGrant) -> Answer {
        let request =
            rpc::RespondActivityTaskCompletedRequest { identity: worker(), ..Default::default() };
        self.decide(Input::ActivityCompleted { who: token(task), request: Box::new(request) })
    }

    pub(crate) fn fail_activity(
        &mut self,
        task: &ActivityGrant,
        failure: Option<Failure>,
    ) -> Answer {
        let request = rpc::RespondActivityTaskFailedRequest {
            identity: worker(),
            failure,
            ..Default::default()
        };
        self.decide(Input::ActivityFailed { who: token(task), request: Box::new(request) })
    }

    pub(crate) fn cancel_activity(&mut self, task: &ActivityGrant) -> Answer {
        let request =
            rpc::RespondActivityTaskCanceledRequest { identity: worker(), ..Default::default() };
        self.decide(Input::ActivityCanceled { who: token(task), request: Box::new(request) })
    }

    pub(crate) fn heartbeat(&mut self, task: &ActivityGrant, details: Option<Payloads>) -> Answer {
        let request = rpc::RecordActivityTaskHeartbeatRequest {
            details,
            identity: worker(),
            ..Default::default()
        };
        self.decide(Input::Heartbeat { who: token(task), request: Box::new(request) })
    }

    pub(crate) fn signal(&mut self) {
        self.world.signal("s", &self.world.now.0.to_string());
    }

    pub(crate) fn terminate(&mut self) {
        let request = rpc::TerminateWorkflowExecutionRequest {
            workflow_execution: Some(self.world.execution()),
            ..rpc::TerminateWorkflowExecutionRequest::default()
        };
        self.decide(Input::Terminate(Box::new(request))).expect("terminates");
    }

    /// Every change of the run.
    pub(crate) fn log(&self) -> Vec<Change> {
        let log = &self.world.runs[&self.world.current()].log;
        log.iter().map(|(tag, body)| Change::decode(*tag, body).expect("decodes")).collect()
    }

    pub(crate) fn history(&self) -> Vec<HistoryEvent> {
        self.world.events()
    }

    /// Ids and types of the events behind the first `skip`.
    pub(crate) fn types(&self, skip: usize) -> Vec<String> {
        let history = self.history();
        history[skip..].iter().map(|e| format!("{} {:?}", e.event_id, e.event_type())).collect()
    }

    /// The attributes of one event.
    pub(crate) fn event(&self, id: EventId) -> Attributes {
        self.history()[id as usize - 1].attributes.clone().expect("attributes")
    }
}

fn worker() -> String {
    "worker".to_owned()
}

fn token(task: &ActivityGrant) -> ActivityRef {
    ActivityRef::Token(task.token.clone())
}

pub(crate) fn queue() -> TaskQueue {
    TaskQueue { name: "queue".into(), ..TaskQueue::default() }
}

/// The message of a refusal.
pub(crate) fn message(answer: Answer) -> String {
    answer.expect_err("refused").message
}

pub(crate) fn payloads(json: &str) -> Payloads {
    Payloads::encode_from(&decoded::Payloads { payloads: vec![Payload::json(json)] })
}

pub(crate) fn seconds(n: u64) -> Option<prost_types::Duration> {
    Some(holdfast_proto::duration(n * SECOND))
}

pub(crate) fn start_timer(id: &str, time: Option<prost_types::Duration>) -> Command {
    let body = StartTimerCommandAttributes { timer_id: id.into(), start_to_fire_timeout: time };
    command(CommandType::StartTimer, Body::StartTimerCommandAttributes(body))
}

pub(crate) fn cancel_timer(id: &str) -> Command {
    let body = CancelTimerCommandAttributes { timer_id: id.into() };
    command(CommandType::CancelTimer, Body::CancelTimerCommandAttributes(body))
}

pub(crate) fn record_marker(name: &str) -> Command {
    let body = RecordMarkerCommandAttributes { marker_name: name.into(), ..Default::default() };
    command(CommandType::RecordMarker, Body::RecordMarkerCommandAttributes(body))
}

/// An activity with a start-to-close timeout of 30 seconds, as `change` makes it.
pub(crate) fn activity(
    id: &str,
    change: impl FnOnce(&mut ScheduleActivityTaskCommandAttributes),
) -> Command {
    let mut body = ScheduleActivityTaskCommandAttributes {
        activity_id: id.into(),
        activity_type: Some(ActivityType { name: "act".into() }),
        task_queue: Some(queue()),
        start_to_close_timeout: seconds(30),
        ..ScheduleActivityTaskCommandAttributes::default()
    };
    change(&mut body);
    command(CommandType::ScheduleActivityTask, Body::ScheduleActivityTaskCommandAttributes(body))
}

pub(crate) fn cancel_activity(scheduled_event_id: i64) -> Command {
    let body = RequestCancelActivityTaskCommandAttributes { scheduled_event_id };
    command(
        CommandType::RequestCancelActivityTask,
        Body::RequestCancelActivityTaskCommandAttributes(body),
    )
}
