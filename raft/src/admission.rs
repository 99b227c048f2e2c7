//! Who gets in: the bounded inbox of a shard (DESIGN 3, rule 7; A24).
//!
//! Work waits in classes; a higher class is served first, namespaces of one class take turns, and
//! refusal starts with the lowest class. One hot workflow id can hold only so many places, so it
//! fills neither the class nor an entry. Nothing that was refused was logged.

use std::collections::{BTreeMap, VecDeque};

use holdfast_engine::ids::{ExecutionKey, NamespaceId};

/// What kind of work an input is; the order is the order of service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub(crate) enum Class {
    /// Due deadlines, offers to pollers, revocations: bounded by what they come from, never
    /// refused.
    Internal = 0,
    /// Completions and heartbeats: refusing them loses finished work.
    Completion = 1,
    /// Signals, cancels, terminations.
    Signal = 2,
    /// Starts.
    Start = 3,
    /// Describes and history reads.
    Read = 4,
}

const CLASSES: usize = 5;

/// Limits of one shard's inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionLimits {
    /// Inputs waiting, of all classes but `Internal`. Completions may use all of it, signals
    /// seven eighths, starts three quarters, reads half.
    pub inputs: usize,
    /// Bytes of requests waiting; split like `inputs`.
    pub bytes: usize,
    /// Inputs waiting for one workflow id; more are BUSY_WORKFLOW.
    pub per_execution: usize,
}

impl Default for AdmissionLimits {
    fn default() -> AdmissionLimits {
        AdmissionLimits { inputs: 16_384, bytes: 64 << 20, per_execution: 1_000 }
    }
}

/// Why work was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The class's share of the inbox is full.
    Overloaded,
    /// Too many inputs wait for this workflow id.
    BusyWorkflow,
}

/// Something that waits.
pub(crate) struct Waiting<T> {
    /// Its execution.
    pub(crate) key: ExecutionKey,
    /// Its class.
    pub(crate) class: Class,
    /// Bytes it is counted with.
    pub(crate) bytes: usize,
    /// The work.
    pub(crate) work: T,
}

/// Work of one class: a queue per namespace, and whose turn it is.
struct Turns<T> {
    queues: BTreeMap<NamespaceId, VecDeque<Waiting<T>>>,
    order: VecDeque<NamespaceId>,
}

/// The inbox of one shard. Not shared: its owner locks it.
pub(crate) struct Admission<T> {
    limits: AdmissionLimits,
    classes: [Turns<T>; CLASSES],
    inputs: usize,
    bytes: usize,
    executions: BTreeMap<ExecutionKey, usize>,
}

impl<T> Admission<T> {
    /// An empty inbox.
    pub(crate) fn new(limits: AdmissionLimits) -> Admission<T> {
        Admission {
            limits,
            classes: std::array::from_fn(|_| Turns {
                queues: BTreeMap::new(),
                order: VecDeque::new(),
            }),
            inputs: 0,
            bytes: 0,
            executions: BTreeMap::new(),
        }
    }

    /// How many inputs wait, `Internal` included.
    pub(crate) fn len(&self) -> usize {
        self.classes.iter().flat_map(|c| c.queues.values()).map(VecDeque::len).sum()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.classes.iter().all(|c| c.order.is_empty())
    }

    /// Takes work in, or gives it back with the reason.
    pub(crate) fn push(&mut self, waiting: Waiting<T>) -> Result<(), (Refused, Waiting<T>)> {
        if waiting.class != Class::Internal {
            let eighths = match waiting.class {
                Class::Internal | Class::Completion => 8,
                Class::Signal => 7,
                Class::Start => 6,
                Class::Read => 4,
            };
            if self.inputs >= self.limits.inputs * eighths / 8
                || self.bytes + waiting.bytes > self.limits.bytes / 8 * eighths
            {
                return Err((Refused::Overloaded, waiting));
            }
            let held = self.executions.get(&waiting.key).copied().unwrap_or(0);
            if held >= self.limits.per_execution {
                return Err((Refused::BusyWorkflow, waiting));
            }
            self.executions.insert(waiting.key.clone(), held + 1);
            self.inputs += 1;
            self.bytes += waiting.bytes;
        }
        let turns = &mut self.classes[waiting.class as usize];
        let namespace = waiting.key.namespace;
        let queue = turns.queues.entry(namespace).or_default();
        if queue.is_empty() {
            turns.order.push_back(namespace);
        }
        queue.push_back(waiting);
        Ok(())
    }

    /// The next piece of work: highest class first, namespaces in turn.
    pub(crate) fn pop(&mut self) -> Option<Waiting<T>> {
        for turns in &mut self.classes {
            let Some(namespace) = turns.order.pop_front() else { continue };
            let Some(queue) = turns.queues.get_mut(&namespace) else { continue };
            let Some(waiting) = queue.pop_front() else { continue };
            if queue.is_empty() {
                turns.queues.remove(&namespace);
            } else {
                turns.order.push_back(namespace);
            }
            if waiting.class != Class::Internal {
                self.inputs -= 1;
                self.bytes -= waiting.bytes;
                if let Some(held) = self.executions.get_mut(&waiting.key) {
                    *held -= 1;
                    if *held == 0 {
                        self.executions.remove(&waiting.key);
                    }
                }
            }
            return Some(waiting);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::Uuid;

    use super::*;

    fn work(namespace: u8, id: &str, class: Class, n: u32) -> Waiting<u32> {
        Waiting {
            key: ExecutionKey::workflow(Uuid([namespace; 16]), id),
            class,
            bytes: 10,
            work: n,
        }
    }

    fn order(inbox: &mut Admission<u32>) -> Vec<u32> {
        std::iter::from_fn(|| inbox.pop().map(|w| w.work)).collect()
    }

    #[test]
    fn classes_come_in_order_and_namespaces_take_turns() {
        let mut inbox = Admission::new(AdmissionLimits::default());
        for (n, w) in [
            work(1, "a", Class::Start, 1),
            work(1, "b", Class::Start, 2),
            work(1, "c", Class::Start, 3),
            work(2, "a", Class::Start, 4),
            work(1, "a", Class::Read, 5),
            work(1, "a", Class::Completion, 6),
            work(1, "a", Class::Internal, 7),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(inbox.push(w).is_ok(), "{n}");
        }
        assert_eq!(inbox.len(), 7);
        assert_eq!(order(&mut inbox), [7, 6, 1, 4, 2, 3, 5]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn refusal_starts_with_the_lowest_class() {
        let limits = AdmissionLimits { inputs: 8, bytes: 1 << 20, per_execution: 100 };
        let mut inbox = Admission::new(limits);
        let mut taken = Vec::new();
        for class in [Class::Read, Class::Start, Class::Signal, Class::Completion] {
            let mut n = 0;
            while inbox.push(work(1, "a", class, 0)).is_ok() {
                n += 1;
            }
            taken.push(n);
        }
        assert_eq!(taken, [4, 2, 1, 1]);
        assert!(inbox.push(work(1, "a", Class::Internal, 0)).is_ok());
    }

    #[test]
    fn one_hot_id_cannot_fill_the_inbox() {
        let limits = AdmissionLimits { inputs: 1000, bytes: 1 << 20, per_execution: 3 };
        let mut inbox = Admission::new(limits);
        for n in 0..3 {
            assert!(inbox.push(work(1, "hot", Class::Signal, n)).is_ok());
        }
        let refused = inbox.push(work(1, "hot", Class::Signal, 3)).map_err(|(why, _)| why);
        assert_eq!(refused, Err(Refused::BusyWorkflow));
        assert!(inbox.push(work(1, "cold", Class::Signal, 4)).is_ok());
        inbox.pop();
        assert!(inbox.push(work(1, "hot", Class::Signal, 5)).is_ok());
    }

    #[test]
    fn bytes_are_bounded() {
        let limits = AdmissionLimits { inputs: 1000, bytes: 80, per_execution: 100 };
        let mut inbox = Admission::new(limits);
        let mut n = 0;
        while inbox.push(work(1, "a", Class::Read, 0)).is_ok() {
            n += 1;
        }
        assert_eq!(n, 4);
    }
}
