//! What every caller was told: one entry for each operation, in the order in which they began.
//!
//! An operation is what a user would call one: all tries of one request are the same operation,
//! under the same request id. The judges rest on nothing but this record, the histories at the end
//! and the tables; so it holds every fact that a caller could rely on, and when it was told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// A point in a run. Steps order what happens at the same simulated time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment {
    /// Counts invocations and answers; 0 is before everything.
    pub step: u64,
    /// True simulated time since the run began, in nanoseconds.
    pub at: u64,
}

impl Moment {
    /// Behind everything.
    pub const NEVER: Moment = Moment { step: u64::MAX, at: u64::MAX };

    /// Simulated seconds, for people.
    pub fn seconds(self) -> f64 {
        self.at as f64 / 1e9
    }
}

/// The place of an operation in the record.
pub type OpId = usize;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// StartWorkflowExecution.
    Start,
    /// SignalWorkflowExecution.
    Signal,
    /// SignalWithStartWorkflowExecution.
    SignalWithStart,
    /// RequestCancelWorkflowExecution.
    Cancel,
    /// TerminateWorkflowExecution.
    Terminate,
    /// DescribeWorkflowExecution.
    Describe,
    /// GetWorkflowExecutionHistory to the end, page by page.
    Read,
    /// GetWorkflowExecutionHistoryReverse, page by page.
    ReadBack,
    /// GetWorkflowExecutionHistory that waits for news.
    Watch,
    /// GetWorkflowExecutionHistory that waits for the close event.
    AwaitClose,
    /// ListWorkflowExecutions of one workflow id.
    List,
    /// CountWorkflowExecutions of one workflow id.
    Count,
    /// PollWorkflowTaskQueue that was handed a task.
    Task,
    /// RespondWorkflowTaskCompleted.
    CompleteTask,
    /// RespondWorkflowTaskFailed.
    FailTask,
    /// PollActivityTaskQueue that was handed a task.
    Attempt,
    /// RespondActivityTaskCompleted, by token or by id.
    CompleteActivity,
    /// RespondActivityTaskFailed.
    FailActivity,
    /// RespondActivityTaskCanceled.
    CancelActivity,
    /// RecordActivityTaskHeartbeat.
    Heartbeat,
}

impl Kind {
    /// In lines and in counts.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Signal => "signal",
            Kind::SignalWithStart => "signal-with-start",
            Kind::Cancel => "cancel",
            Kind::Terminate => "terminate",
            Kind::Describe => "describe",
            Kind::Read => "read",
            Kind::ReadBack => "read-back",
            Kind::Watch => "watch",
            Kind::AwaitClose => "await-close",
            Kind::List => "list",
            Kind::Count => "count",
            Kind::Task => "task",
            Kind::CompleteTask => "complete-task",
            Kind::FailTask => "fail-task",
            Kind::Attempt => "attempt",
            Kind::CompleteActivity => "complete-activity",
            Kind::FailActivity => "fail-activity",
            Kind::CancelActivity => "cancel-activity",
            Kind::Heartbeat => "heartbeat",
        }
    }
}

/// What a start says about an id that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// `WorkflowIdReusePolicy`, as its number.
    pub reuse: i32,
    /// `WorkflowIdConflictPolicy`, as its number.
    pub conflict: i32,
}

/// A request, as far as judges care.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    /// What for.
    pub kind: Kind,
    /// Who asks.
    pub who: Arc<str>,
    /// The workflow id; empty when it is about none.
    pub id: Arc<str>,
    /// The run that is named; empty for the current one.
    pub run: String,
    /// Unique in the record, and the identity in the events that it leaves. The request id, too, but
    /// for the calls that carry one which another kind of call had before.
    pub request: String,
    /// Of a start.
    pub policies: Policies,
    /// Of an activity's attempt: the activity id and the attempt's number.
    pub attempt: Option<(String, i32)>,
    /// Of an answer to a workflow task: what its worker was shown.
    pub saw: Option<Saw>,
}

/// The history that a worker decided on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saw {
    /// Its last event, the start of the task.
    pub started: i64,
    /// The types of all its events, mixed in order; see [`Saw::next`].
    pub types: u64,
}

impl Saw {
    /// Nothing yet.
    pub const NOTHING: Saw = Saw { started: 0, types: 0 };

    /// And one more event.
    pub fn next(self, id: i64, event_type: i32) -> Saw {
        let mixed = self.types.rotate_left(7) ^ (event_type as u64 + 1);
        Saw { started: id, types: mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }
}

/// What an answer told.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// Done.
    Done,
    /// A start's answer.
    Started {
        /// The run.
        run: String,
        /// Whether this request made it.
        started: bool,
    },
    /// A start's answer: its request was attached to this run, which was there.
    Attached {
        /// The run.
        run: String,
    },
    /// The state of a run: describe, reads of history, tasks of workers.
    Shown {
        /// The run.
        run: String,
        /// How many events it had, at least.
        from: i64,
        /// How many, at most; 0 when the answer bounds nothing from above.
        to: i64,
        /// Whether it was closed; `None` when the answer does not say.
        closed: Option<bool>,
    },
    /// The runs of an id and their statuses.
    Listed(Vec<(String, i32)>),
    /// How many runs an id has.
    Counted(i64),
    /// An activity's attempt was handed out.
    Attempt {
        /// The run.
        run: String,
        /// `maximum_attempts` of the policy; 0 for no limit.
        maximum: i32,
        /// When it was due by the word of whoever handed it out, nanoseconds since the epoch.
        due: u64,
        /// When it began, likewise.
        began: u64,
    },
    /// A heartbeat's answer: whether to stop.
    Beat(bool),
}

/// How an operation ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Nobody was told yet.
    Open,
    /// Acknowledged.
    Ok(Told),
    /// A node refused.
    Refused {
        /// Why.
        code: tonic::Code,
        /// In words.
        text: String,
    },
    /// It may have had an effect, or may still.
    Unknown,
    /// No try of it can have had an effect.
    NotSent,
}

/// One operation.
#[derive(Clone, PartialEq, Debug)]
pub struct Operation {
    /// The request.
    pub asked: Asked,
    /// Before the first try.
    pub invoked: Moment,
    /// When the caller knew; [`Moment::NEVER`] while it does not.
    pub returned: Moment,
    /// What it knew then.
    pub outcome: Outcome,
    /// A try before the last may have had an effect: a refusal does not rule it out.
    pub unsure: bool,
}

impl Operation {
    /// What an acknowledged one told.
    pub fn told(&self) -> Option<&Told> {
        match &self.outcome {
            Outcome::Ok(told) => Some(told),
            Outcome::Open | Outcome::Refused { .. } | Outcome::Unknown | Outcome::NotSent => None,
        }
    }

    /// Whether it certainly had no effect: refused or not sent, and no try before is in doubt.
    pub fn is_void(&self) -> bool {
        match self.outcome {
            Outcome::Refused { .. } | Outcome::NotSent => !self.unsure,
            Outcome::Open | Outcome::Ok(_) | Outcome::Unknown => false,
        }
    }

    /// For people: who asked for what, when, and what they were told.
    pub fn describe(&self) -> String {
        let Asked { kind, who, id, run, request, .. } = &self.asked;
        let target = match (id.is_empty(), run.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!(" {id}"),
            (false, false) => format!(" {id}/{run}"),
        };
        let began = self.invoked.seconds();
        let told = match &self.outcome {
            Outcome::Open => "was never told how it ended".to_owned(),
            Outcome::Ok(told) => format!("was told {told:?} at {:.6} s", self.returned.seconds()),
            Outcome::Refused { code, text } => {
                format!("was refused at {:.6} s: {code:?}: {text}", self.returned.seconds())
            }
            Outcome::Unknown => {
                format!("gave up at {:.6} s, outcome unknown", self.returned.seconds())
            }
            Outcome::NotSent => {
                format!("gave up at {:.6} s, nothing sent", self.returned.seconds())
            }
        };
        let doubt = if self.unsure { " (an earlier try is in doubt)" } else { "" };
        format!(
            "{who} asked at {began:.6} s for {}{target} ({request}) and {told}{doubt}",
            kind.name()
        )
    }
}

/// A poll of a worker that a node answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Poll {
    /// Who polled.
    pub who: Arc<str>,
    /// The node.
    pub node: u64,
    /// The task queue.
    pub queue: String,
    /// Whether for workflow tasks; for activities otherwise.
    pub is_workflow: bool,
    /// The tasks in a second that it asked for its queue to be limited to.
    pub rate: Option<u32>,
    /// When it was sent.
    pub invoked: Moment,
    /// When its answer came.
    pub returned: Moment,
    /// What it was given; `None` for nothing.
    pub got: Option<Got>,
}

/// The task that a poll was given.
#[derive(Clone, PartialEq, Debug)]
pub struct Got {
    /// The workflow id.
    pub id: String,
    /// The run.
    pub run: String,
    /// What it is, for people.
    pub what: String,
    /// Since when it could go out by the server's word, nanoseconds since the epoch.
    pub scheduled: u64,
    /// When it was handed out by the server's word, nanoseconds since the epoch.
    pub began: u64,
    /// Its priority, 1 to 5; `None` when it has that of its run.
    pub priority: Option<u8>,
}

/// The record of a run; clones write to the same one.
#[derive(Clone)]
pub struct Record(Arc<Mutex<Inner>>);

struct Inner {
    began: Instant,
    step: u64,
    operations: Vec<Operation>,
    polls: Vec<Poll>,
}

impl Record {
    /// An empty record; simulated time counts from now.
    pub fn new() -> Record {
        let (operations, polls) = (Vec::new(), Vec::new());
        Record(Arc::new(Mutex::new(Inner { began: Instant::now(), step: 0, operations, polls })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next moment.
    pub fn moment(&self) -> Moment {
        self.lock().moment()
    }

    /// An operation begins.
    pub fn begin(&self, asked: Asked) -> OpId {
        let mut inner = self.lock();
        let invoked = inner.moment();
        inner.operations.push(Operation {
            asked,
            invoked,
            returned: Moment::NEVER,
            outcome: Outcome::Open,
            unsure: false,
        });
        inner.operations.len() - 1
    }

    /// An operation ends.
    pub fn end(&self, op: OpId, outcome: Outcome, unsure: bool) -> Moment {
        let mut inner = self.lock();
        let returned = inner.moment();
        if let Some(operation) = inner.operations.get_mut(op) {
            operation.returned = returned;
            operation.outcome = outcome;
            operation.unsure = unsure;
        }
        returned
    }

    /// What is known of an operation from its answer alone: a poll that was handed something.
    pub fn handed(&self, asked: Asked, invoked: Moment, told: Told) -> OpId {
        let mut inner = self.lock();
        let returned = inner.moment();
        let outcome = Outcome::Ok(told);
        inner.operations.push(Operation { asked, invoked, returned, outcome, unsure: false });
        inner.operations.len() - 1
    }

    /// A poll has its answer. The time of that is filled in here.
    pub fn polled(&self, mut poll: Poll) {
        let mut inner = self.lock();
        poll.returned = inner.moment();
        inner.polls.push(poll);
    }

    /// The answered polls so far, in the order of their answers.
    pub fn polls(&self) -> Vec<Poll> {
        self.lock().polls.clone()
    }

    /// Looks at everything so far without copying it; nothing begins or ends meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&[Operation]) -> T) -> T {
        at(&self.lock().operations)
    }

    /// Everything so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

impl Inner {
    fn moment(&mut self) -> Moment {
        self.step += 1;
        let at = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Moment { step: self.step, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str) -> Asked {
        Asked {
            kind: Kind::Signal,
            who: "c1".into(),
            id: "w".into(),
            run: String::new(),
            request: request.to_owned(),
            policies: Policies::default(),
            attempt: None,
            saw: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_later_than_its_question() {
        let record = Record::new();
        let op = record.begin(asked("r1"));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        record.end(op, Outcome::Refused { code: tonic::Code::NotFound, text: "no".into() }, true);
        let operations = record.operations();
        let one = &operations[op];
        assert!(one.invoked < one.returned && one.returned.at == 5_000_000);
        assert!(!one.is_void(), "an earlier try is in doubt");
        assert_eq!(
            one.describe(),
            "c1 asked at 0.000000 s for signal w (r1) and was refused at 0.005000 s: NotFound: \
             no (an earlier try is in doubt)"
        );
    }
}
