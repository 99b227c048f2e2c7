//! The head of a shard's backlog of one queue, in memory; the rest stays in the table.
//!
//! `row committed -> insert -> pop_ready -> remove (row gone) | put_back`
//!
//! A lane per priority holds the rows with the least keys, at most `capacity` of them. A lane that
//! could not hold all has a *horizon*: rows from that key on are only in the table, and are loaded
//! from there ([`Pop::Load`], [`Window::load`]) before a lesser lane is looked at. What was popped
//! stays known until its row is removed, so that loading does not bring it a second time: a row
//! outlives its grant by up to 20 ms.
//!
//! In a lane, rows stand by fairness pass, then time. While every pass is 0, what is ready comes
//! before what is delayed, and a lane full of delayed rows hides nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::hub::Head;
use crate::ids::{EventId, Hlc, RunId};

/// Priorities, the first the most urgent.
pub const PRIORITIES: std::ops::RangeInclusive<u8> = 1..=5;

/// The place of a task in its queue; the end of its row's key (DESIGN 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TaskKey {
    /// 1 (first) to 5.
    pub priority: u8,
    /// 0 for now.
    pub pass: u64,
    /// Not to be handed out before.
    pub at: Hlc,
    /// The run.
    pub run: RunId,
    /// The event that scheduled the task.
    pub event: EventId,
}

impl TaskKey {
    /// Before every key of a priority.
    pub fn first_of(priority: u8) -> TaskKey {
        TaskKey { priority, pass: 0, at: Hlc::ZERO, run: RunId::NIL, event: 0 }
    }

    /// The least key above this one.
    fn next(self) -> TaskKey {
        TaskKey { event: self.event.saturating_add(1), ..self }
    }
}

/// What a window has to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pop<V> {
    /// The first task that is ready.
    Task(TaskKey, V),
    /// First read the rows of this priority from this key on, and hand them to [`Window::load`].
    Load(TaskKey),
    /// Nothing is ready.
    Empty,
}

#[derive(Clone, Debug)]
struct Lane<V> {
    ready: BTreeMap<TaskKey, V>,
    delayed: BTreeMap<(Hlc, TaskKey), V>,
    /// Rows from here on are not held.
    horizon: Option<TaskKey>,
}

impl<V> Lane<V> {
    fn len(&self) -> usize {
        self.ready.len() + self.delayed.len()
    }

    /// Moves what has become due.
    fn wake(&mut self, now: Hlc) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let ((_, key), value) = entry.remove_entry();
            self.ready.insert(key, value);
        }
    }

    fn insert(&mut self, key: TaskKey, value: V) {
        // Where it stands is decided by `wake`, which sees the time.
        self.delayed.insert((key.at, key), value);
    }

    fn remove(&mut self, key: &TaskKey) -> Option<V> {
        self.ready.remove(key).or_else(|| self.delayed.remove(&(key.at, *key)))
    }

    /// Lets go of the greatest keys until `capacity` is kept.
    fn shrink(&mut self, capacity: usize) {
        while self.len() > capacity {
            let ready = self.ready.last_key_value().map(|(key, _)| *key);
            let delayed = self.delayed.keys().map(|(_, key)| *key).max();
            let Some(last) = ready.max(delayed) else { return };
            self.remove(&last);
            self.horizon = Some(last);
        }
    }

    /// Where to load from, when the next ready row may be one that is not held.
    fn missing(&self, now: Hlc) -> Option<TaskKey> {
        self.horizon.filter(|horizon| self.ready.is_empty() && horizon.at <= now)
    }
}

/// The window of one queue and task type of one shard.
#[derive(Clone, Debug)]
pub struct Window<V> {
    lanes: BTreeMap<u8, Lane<V>>,
    taken: BTreeSet<TaskKey>,
    capacity: usize,
}

impl<V> Window<V> {
    /// The window of a queue that has no row yet. Holds at most `capacity` rows of each priority.
    pub fn new(capacity: usize) -> Window<V> {
        Window::with(capacity, false)
    }

    /// The window of a queue whose rows are all in the table: of a new leader.
    pub fn unloaded(capacity: usize) -> Window<V> {
        Window::with(capacity, true)
    }

    fn with(capacity: usize, unloaded: bool) -> Window<V> {
        let lane = |priority| {
            let horizon = unloaded.then(|| TaskKey::first_of(priority));
            (priority, Lane { ready: BTreeMap::new(), delayed: BTreeMap::new(), horizon })
        };
        let lanes = PRIORITIES.map(lane).collect();
        Window { lanes, taken: BTreeSet::new(), capacity: capacity.max(1) }
    }

    /// A row was written. What lies behind the horizon is left to the table. A priority outside
    /// 1 to 5 is no key of ours; `false` then, and when the row is not held.
    pub fn insert(&mut self, key: TaskKey, value: V) -> bool {
        self.taken.remove(&key);
        let Some(lane) = self.lanes.get_mut(&key.priority) else { return false };
        if lane.horizon.is_some_and(|horizon| key >= horizon) {
            return false;
        }
        lane.insert(key, value);
        lane.shrink(self.capacity);
        lane.horizon.is_none_or(|horizon| key < horizon)
    }

    /// A row was deleted.
    pub fn remove(&mut self, key: &TaskKey) -> Option<V> {
        self.taken.remove(key);
        self.lanes.get_mut(&key.priority)?.remove(key)
    }

    /// Takes the first ready task: of the most urgent priority that has one, the least key.
    pub fn pop_ready(&mut self, now: Hlc) -> Pop<V> {
        for lane in self.lanes.values_mut() {
            lane.wake(now);
            if let Some((key, value)) = lane.ready.pop_first() {
                self.taken.insert(key);
                return Pop::Task(key, value);
            }
            if let Some(from) = lane.missing(now) {
                return Pop::Load(from);
            }
        }
        Pop::Empty
    }

    /// A popped task was not handed out: it is waiting again, at its old place.
    pub fn put_back(&mut self, key: TaskKey, value: V) -> bool {
        self.taken.remove(&key) && self.insert(key, value)
    }

    /// Rows read from the table from `from` on, in order; `more` when there are further ones.
    /// Read them in the same step as the [`Pop::Load`] that asked: a row that is written between
    /// reading and loading would be missed.
    pub fn load(
        &mut self,
        from: TaskKey,
        rows: impl IntoIterator<Item = (TaskKey, V)>,
        more: bool,
    ) {
        let Some(lane) = self.lanes.get_mut(&from.priority) else { return };
        if lane.horizon != Some(from) {
            return;
        }
        let mut last = None;
        for (key, value) in rows {
            if key < from || key.priority != from.priority {
                continue;
            }
            last = last.max(Some(key));
            if !self.taken.contains(&key) {
                lane.insert(key, value);
            }
        }
        // Nothing read although there is more: the same is asked again.
        lane.horizon = if more { Some(last.map_or(from, TaskKey::next)) } else { None };
        lane.shrink(self.capacity);
    }

    /// Where to load from before [`Window::head`] is the truth: the first task that is ready may be one
    /// that is not held.
    pub fn hidden_head(&mut self, now: Hlc) -> Option<TaskKey> {
        for lane in self.lanes.values_mut() {
            lane.wake(now);
            if !lane.ready.is_empty() {
                return None;
            }
            if let Some(from) = lane.missing(now) {
                return Some(from);
            }
        }
        None
    }

    /// The first ready task, as the shard reports it to the hub, and how many are known. While
    /// [`Window::hidden_head`] gives something it is no more than a bound, never later than the truth.
    pub fn head(&mut self, now: Hlc) -> Option<(Head, usize)> {
        let mut head = None;
        let mut ready = 0;
        for (priority, lane) in &mut self.lanes {
            lane.wake(now);
            ready += lane.ready.len();
            let first = lane.ready.keys().next().map(|key| key.at);
            let at = first.or_else(|| lane.missing(now).map(|from| from.at));
            head = head.or(at.map(|at| Head { priority: *priority, at }));
        }
        head.map(|head| (head, ready.max(1)))
    }

    /// When something that is not ready now may be: the next delayed row, or the horizon.
    pub fn next_delayed(&self, now: Hlc) -> Option<Hlc> {
        let of_lane = |lane: &Lane<V>| {
            let first = lane.delayed.keys().map(|(at, _)| *at).find(|at| *at > now);
            let beyond = lane.horizon.map(|horizon| horizon.at).filter(|at| *at > now);
            first.into_iter().chain(beyond).min()
        };
        self.lanes.values().filter_map(of_lane).min()
    }

    /// Whether rows exist, or may exist, that are only in the table.
    pub fn is_truncated(&self) -> bool {
        self.lanes.values().any(|lane| lane.horizon.is_some())
    }

    /// How many rows are held.
    pub fn len(&self) -> usize {
        self.lanes.values().map(Lane::len).sum()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tasks are popped and neither removed nor put back.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;
    use proptest::prelude::*;

    fn key(priority: u8, at: u64, event: EventId) -> TaskKey {
        TaskKey { priority, pass: 0, at: Hlc(at), run: Uuid([1; 16]), event }
    }

    #[test]
    fn priority_then_time_then_the_rest() {
        let mut window = Window::new(10);
        for (n, key) in
            [key(3, 5, 1), key(3, 4, 2), key(1, 9, 3), key(1, 20, 4)].into_iter().enumerate()
        {
            assert!(window.insert(key, n));
        }
        assert!(!window.insert(key(6, 1, 1), 9));
        assert_eq!(window.head(Hlc(10)), Some((Head { priority: 1, at: Hlc(9) }, 3)));
        assert_eq!(window.next_delayed(Hlc(10)), Some(Hlc(20)));
        let order: Vec<usize> = std::iter::from_fn(|| match window.pop_ready(Hlc(10)) {
            Pop::Task(_, n) => Some(n),
            _ => None,
        })
        .collect();
        assert_eq!(order, [2, 1, 0]);
        assert_eq!(window.pop_ready(Hlc(10)), Pop::Empty);
        assert_eq!(window.pop_ready(Hlc(20)), Pop::Task(key(1, 20, 4), 3));
    }

    #[test]
    fn beyond_its_capacity_a_lane_leaves_rows_to_the_table() {
        let mut window = Window::new(2);
        assert!(window.insert(key(3, 1, 1), ()));
        assert!(window.insert(key(3, 3, 1), ()));
        assert!(!window.is_truncated());
        assert!(window.insert(key(3, 2, 1), ()), "before the greatest");
        assert!(window.is_truncated());
        assert!(!window.insert(key(3, 9, 1), ()), "behind the horizon");
        assert!(window.insert(key(4, 9, 1), ()), "another lane");
        assert_eq!(window.len(), 3);
        for at in [1, 2] {
            assert_eq!(window.pop_ready(Hlc(10)), Pop::Task(key(3, at, 1), ()));
        }
        // The lane is not empty: what follows it must wait.
        assert_eq!(window.pop_ready(Hlc(10)), Pop::Load(key(3, 3, 1)));
        window.load(key(3, 3, 1), [(key(3, 3, 1), ()), (key(3, 9, 1), ())], false);
        assert!(!window.is_truncated());
        for next in [key(3, 3, 1), key(3, 9, 1), key(4, 9, 1)] {
            assert_eq!(window.pop_ready(Hlc(10)), Pop::Task(next, ()));
        }
    }

    #[test]
    fn what_was_popped_is_not_loaded_again() {
        let mut window = Window::unloaded(2);
        let from = TaskKey::first_of(1);
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Load(from));
        window.load(from, [(key(1, 5, 1), ())], false);
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Task(key(1, 5, 1), ()));
        // Three older ones push the horizon below the popped one, whose row is still there.
        for event in 1..=3 {
            window.insert(key(1, event as u64, event), ());
        }
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Task(key(1, 1, 1), ()));
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Task(key(1, 2, 2), ()));
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Load(key(1, 3, 3)));
        window.load(key(1, 3, 3), [(key(1, 3, 3), ()), (key(1, 5, 1), ())], false);
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Task(key(1, 3, 3), ()));
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Load(TaskKey::first_of(2)));
        assert!(window.put_back(key(1, 5, 1), ()));
        assert!(!window.put_back(key(1, 5, 1), ()), "once");
        assert_eq!(window.pop_ready(Hlc(9)), Pop::Task(key(1, 5, 1), ()));
    }

    #[test]
    fn a_stale_load_is_ignored() {
        let mut window = Window::unloaded(2);
        window.load(TaskKey::first_of(1), [], false);
        window.load(TaskKey::first_of(1), [(key(1, 1, 1), ())], false);
        assert!(window.is_empty());
    }

    /// The whole backlog, and what is popped.
    #[derive(Default)]
    struct Model {
        rows: BTreeMap<TaskKey, u32>,
        taken: BTreeSet<TaskKey>,
    }

    impl Model {
        fn next(&self, now: Hlc) -> Option<(TaskKey, u32)> {
            let ready = |key: &TaskKey| key.at <= now && !self.taken.contains(key);
            self.rows.iter().find(|(key, _)| ready(key)).map(|(key, value)| (*key, *value))
        }

        /// Pops, reading the table as often as it is asked to.
        fn pop(&self, window: &mut Window<u32>, now: Hlc, chunk: usize) -> Option<(TaskKey, u32)> {
            for _ in 0..1000 {
                let from = match window.pop_ready(now) {
                    Pop::Task(key, value) => return Some((key, value)),
                    Pop::Empty => return None,
                    Pop::Load(from) => from,
                };
                let lane = self.rows.range(from..).take_while(|(k, _)| k.priority == from.priority);
                let rows: Vec<_> = lane.map(|(key, value)| (*key, *value)).collect();
                let more = rows.len() > chunk;
                window.load(from, rows.into_iter().take(chunk), more);
            }
            panic!("loads without end");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_given_twice(
            capacity in 1usize..6,
            chunk in 1usize..6,
            before in proptest::collection::btree_set((1u8..6, 0u64..40, 0i64..4), 0..20),
            steps in proptest::collection::vec((0u8..6, 1u8..6, 0u64..40, 0i64..4), 1..120),
        ) {
            let mut model = Model::default();
            for (priority, at, event) in before {
                model.rows.insert(key(priority, at, event), 0);
            }
            let mut window = Window::unloaded(capacity);
            let mut now = Hlc(0);
            for (n, (what, priority, at, event)) in steps.into_iter().enumerate() {
                let key = key(priority, at, event);
                match what {
                    0 | 1 => {
                        if let std::collections::btree_map::Entry::Vacant(row) = model.rows.entry(key) {
                            row.insert(n as u32);
                            window.insert(key, n as u32);
                        }
                    }
                    2 => {
                        model.rows.remove(&key);
                        model.taken.remove(&key);
                        window.remove(&key);
                    }
                    3 => {
                        if let Some(key) = model.taken.pop_first() {
                            window.put_back(key, model.rows[&key]);
                        }
                    }
                    4 => now = now.max(Hlc(at)),
                    _ => {
                        let popped = model.pop(&mut window, now, chunk);
                        prop_assert_eq!(popped, model.next(now));
                        model.taken.extend(popped.map(|(key, _)| key));
                    }
                }
                prop_assert!(window.len() <= capacity * 5);
                prop_assert_eq!(window.taken(), model.taken.len());
                if let Some((key, _)) = model.next(now) {
                    // The head is never later than the truth, so that no shard stays silent.
                    let head = window.head(now).map(|(head, _)| head);
                    let truth = Head { priority: key.priority, at: key.at };
                    prop_assert!(head.is_some_and(|head| head <= truth), "{:?}", head);
                    if window.hidden_head(now).is_none() {
                        prop_assert_eq!(head, Some(truth));
                    }
                }
            }
            let waiting = model.rows.keys().filter(|key| key.at > now && !model.taken.contains(key));
            if let Some(at) = waiting.map(|key| key.at).min() {
                let next = window.next_delayed(now);
                prop_assert!(next.is_some_and(|next| next <= at) || window.head(now).is_some());
            }
        }
    }
}
