//! Deciding: load what an input concerns, call the engine, take in what it pushed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use holdfast_engine::ids::{ChangeSeq, ExecutionKey, RunId, Slot};
use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::rows;
use holdfast_engine::workflow::own_time;
use holdfast_engine::{
    Change, Code, Draft, Env, Halt, IdSource, Input, Live, Overlay, RecordLive, Rejection, Reply,
    Target,
};
use holdfast_proto::enums::EventType;
use holdfast_storage::StorageError;
use prost::Message;

use super::row_ops;
use super::{Batch, RunEffects, Serving};
use crate::cache::{Cached, CachedRun, Pending};
use crate::entry::{EntryDraft, EntryLimits, SlotPart, WireChange};
use crate::load::{self, FoldMark};

/// What a decision came to.
pub(super) struct Decided {
    /// The answer.
    pub(super) result: Result<Reply, Rejection>,
    /// The newest entry that the answer rests on; 0 when it rests on what is applied.
    pub(super) observed: u64,
}

/// How often one input may discard its draft and go on as another input.
const DISCARDS: usize = 2;

/// What a decision pushed, in the form that goes into an entry and into the cache.
#[derive(Default)]
struct Gathered {
    /// Its share of the entry.
    batch: Batch,
    /// The changes of each slot by their last number, which the cache keeps until they are applied.
    pending: Vec<(Slot, ChangeSeq, Vec<Change>)>,
}

impl Serving {
    /// Decides one input of `key`. `Err` is damage: the shard stops.
    pub(super) fn decide(
        &mut self,
        key: &ExecutionKey,
        namespace: &NamespaceView,
        mut input: Input,
    ) -> Result<Decided, StorageError> {
        if self.quarantined.contains(key) {
            return Ok(Decided { result: Err(quarantined(key)), observed: 0 });
        }
        for _ in 0..=DISCARDS {
            let target = holdfast_engine::target(&input);
            // Folding runs the engine too: what panics there concerns this execution alone.
            let Ok(loaded) = catch_unwind(AssertUnwindSafe(|| self.draft(key, target))) else {
                return Ok(self.quarantine(key));
            };
            let (mut cached, mut draft) = loaded?;
            let overlay = draft.runs.first().map(|live| live.overlay.clone());
            let time = own_time::of(&draft, target, self.now());
            let env = Env {
                now: time.now,
                ahead: time.ahead,
                ids: IdSource::new(self.host.rng.next_u64()),
                namespace,
                limits: &self.limits,
                stamped: Cell::new(0),
            };
            let outcome =
                catch_unwind(AssertUnwindSafe(|| holdfast_engine::decide(&mut draft, input, &env)));
            self.clock = env.clock();
            match outcome {
                Ok(Ok(reply)) => return self.absorb(key, cached, draft, Ok(reply)),
                Ok(Err(Halt::Rejected(why))) => return self.absorb(key, cached, draft, Err(why)),
                Ok(Err(Halt::Discard(instead))) => {
                    let restore = || self.restore(key, &mut cached, draft, overlay);
                    let Ok(restored) = catch_unwind(AssertUnwindSafe(restore)) else {
                        return Ok(self.quarantine(key));
                    };
                    restored?;
                    self.cache.put(key.clone(), cached, self.applied);
                    input = *instead;
                }
                Err(_) => return Ok(self.quarantine(key)),
            }
        }
        Ok(Decided {
            result: Err(Rejection::new(Code::Internal, "a decision was discarded too often")),
            observed: 0,
        })
    }

    /// A panic while deciding concerns this execution alone (DESIGN 3, rule 8; A27).
    fn quarantine(&mut self, key: &ExecutionKey) -> Decided {
        tracing::error!(
            shard = self.shard,
            namespace = %key.namespace,
            id = %key.id,
            "a decision panicked; this execution is quarantined until the shard's next leader"
        );
        self.quarantined.insert(key.clone());
        self.grants.retain(|(granted, _)| granted != key);
        Decided { result: Err(quarantined(key)), observed: 0 }
    }

    /// Takes an execution out of the cache, or loads it, with the run that `target` names.
    fn draft(
        &mut self,
        key: &ExecutionKey,
        target: Target,
    ) -> Result<(Cached, Draft), StorageError> {
        let mut cached = match self.cache.take(key) {
            Some(cached) => cached,
            None => {
                let view = self.host.store.view();
                let (record, mark) = load::record(view.as_ref(), self.shard, key)?;
                Cached::new(RecordLive { record, changes: Vec::new() }, mark)
            }
        };
        let run = match target {
            Target::Run(run) => Some(run),
            Target::Current => cached.record.record.current.as_ref().map(|c| c.run_id()),
        };
        let mut runs = Vec::new();
        if let Some(run) = run {
            runs.extend(self.run_of(key, &mut cached, run)?);
        }
        let record = std::mem::take(&mut cached.record);
        Ok((cached, Draft { key: key.clone(), record, runs }))
    }

    /// The live run out of `cached`, loaded when it is not there; `None` when it does not exist.
    fn run_of(
        &mut self,
        key: &ExecutionKey,
        cached: &mut Cached,
        run: RunId,
    ) -> Result<Option<Live>, StorageError> {
        let held = match cached.runs.entry(run) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                let view = self.host.store.view();
                let Some((state, mark)) = load::run(view.as_ref(), self.shard, key, run)? else {
                    return Ok(None);
                };
                let live = Live::loaded(run, state);
                place.insert(CachedRun { live, mark, pending: VecDeque::new() })
            }
        };
        Ok(Some(std::mem::replace(&mut held.live, Live::new(run))))
    }

    /// Brings an execution back to before a discarded draft: what the tables have, then what is
    /// on its way to them (A20: cheaper than a copy for each decision).
    fn restore(
        &mut self,
        key: &ExecutionKey,
        cached: &mut Cached,
        draft: Draft,
        overlay: Option<Overlay>,
    ) -> Result<(), StorageError> {
        let view = self.host.store.view();
        let (mut record, _) = load::record(view.as_ref(), self.shard, key)?;
        for change in not_in(&cached.pending, record.seq) {
            holdfast_engine::id_record::apply(&mut record, change);
        }
        cached.record = RecordLive { record, changes: Vec::new() };
        let mut overlay = overlay;
        for live in draft.runs {
            let Some(held) = cached.runs.get_mut(&live.run) else { continue };
            let loaded = load::run(view.as_ref(), self.shard, key, live.run)?;
            let mut state = loaded.map_or_else(holdfast_engine::live::fresh, |(state, _)| state);
            let mut dirty = rows::Dirty::default();
            for change in not_in(&held.pending, state.seq) {
                holdfast_engine::workflow::apply(&mut state, change, &mut dirty);
            }
            held.live = Live::loaded(live.run, state);
            held.live.overlay = overlay.take().unwrap_or_default();
        }
        Ok(())
    }

    /// Takes in what a decision pushed: changes and rows go into the open entry, the states back
    /// into the cache.
    fn absorb(
        &mut self,
        key: &ExecutionKey,
        mut cached: Cached,
        draft: Draft,
        result: Result<Reply, Rejection>,
    ) -> Result<Decided, StorageError> {
        // Rows and checkpoints are the engine's too.
        let gather = || self.gather(key, &mut cached, draft);
        let Ok(gathered) = catch_unwind(AssertUnwindSafe(gather)) else {
            return Ok(self.quarantine(key));
        };
        let Gathered { batch, pending } = gathered;
        if batch.bytes > EntryLimits::DECISION_BYTES {
            // The limits of requests and of a run's state are there so that this can't be.
            tracing::error!(bytes = batch.bytes, "a decision is larger than an entry may be");
            return Ok(self.quarantine(key));
        }
        if !batch.drafts.is_empty() {
            if self.batch.overflows(batch.bytes, &self.config) {
                self.sealed.push_back(std::mem::take(&mut self.batch));
            }
            let entry = self.open_entry();
            for (slot, seq, changes) in pending {
                let base = seq - changes.len() as u64;
                cached.remember(slot, Pending { entry, base, changes });
            }
            cached.observed = entry;
            self.batch.join(batch);
        }
        let observed = cached.observed;
        self.cache.put(key.clone(), cached, self.applied);
        Ok(Decided { result, observed })
    }

    fn gather(&mut self, key: &ExecutionKey, cached: &mut Cached, draft: Draft) -> Gathered {
        let mut gathered = Gathered::default();
        let mut out = EntryDraft { key: key.clone(), parts: Vec::new(), rows: Vec::new() };
        let mut record = draft.record;
        let changes = std::mem::take(&mut record.changes);
        if !changes.is_empty() && record.record.current.is_none() {
            // The last run left: an id without runs leaves no trace. Its request ids are older
            // than their window, since retention is longer than that.
            let base = record.record.seq - changes.len() as u64;
            out.parts.push(dropped(Slot::Id, base));
            record = RecordLive::default();
            cached.mark = FoldMark::default();
            cached.pending.clear();
        } else if !changes.is_empty() {
            let seq = record.record.seq;
            let state = || Bytes::from(record.record.encode_to_vec());
            out.parts.push(part(Slot::Id, seq, &changes, &mut cached.mark, Some(&state)));
            gathered.pending.push((Slot::Id, seq, changes));
        }
        cached.record = record;
        for live in draft.runs {
            self.gather_run(key, cached, live, &mut out, &mut gathered);
        }
        if !out.parts.is_empty() {
            gathered.batch.add(out);
        }
        gathered
    }

    fn gather_run(
        &mut self,
        key: &ExecutionKey,
        cached: &mut Cached,
        mut live: Live,
        out: &mut EntryDraft,
        gathered: &mut Gathered,
    ) {
        let run = live.run;
        if live.overlay.grants.is_empty() {
            self.grants.remove(&(key.clone(), run));
        } else if self.grants.insert((key.clone(), run)) && self.grants.len() == 1 {
            self.first_grant = self.host.clock.steady();
        }
        let changes = std::mem::take(&mut live.changes);
        let dirty = std::mem::take(&mut live.dirty);
        let diff = rows::diff(&mut live.rows, &live.state, &dirty);
        let batch = &mut gathered.batch;
        row_ops::of_run(self.shard, key, run, &diff, &mut out.rows, &mut batch.moves);
        if live.state.deleted {
            out.parts.push(dropped(Slot::Run(run), live.state.seq - changes.len() as u64));
            cached.runs.remove(&run);
            batch.effects.push(RunEffects { key: key.clone(), run, diff, wake: true });
            return;
        }
        let mut held = cached.runs.remove(&run).unwrap_or_else(|| CachedRun {
            live: Live::new(run),
            mark: FoldMark::default(),
            pending: VecDeque::new(),
        });
        if !changes.is_empty() {
            let seq = live.state.seq;
            let state = || Bytes::from(live.state.encode_to_vec());
            let (first, rest) = changes.split_at(transaction_end(&changes));
            let mut last = first;
            if !rest.is_empty() {
                let first_seq = seq - rest.len() as u64;
                let parts = vec![part(Slot::Run(run), first_seq, first, &mut held.mark, None)];
                batch.add(EntryDraft { key: key.clone(), parts, rows: Vec::new() });
                last = rest;
            }
            out.parts.push(part(Slot::Run(run), seq, last, &mut held.mark, Some(&state)));
            let wake = changes.iter().any(|change| matches!(change, Change::Event(_)));
            batch.effects.push(RunEffects { key: key.clone(), run, diff, wake });
            gathered.pending.push((Slot::Run(run), seq, changes));
        }
        held.live = live;
        cached.runs.insert(run, held);
    }

    /// The number of the entry that is being filled; the first of a reign is 1.
    pub(super) fn open_entry(&self) -> u64 {
        self.proposed + self.sealed.len() as u64 + 1
    }
}

/// The changes after `seq`.
fn not_in(pending: &VecDeque<Pending>, seq: ChangeSeq) -> impl Iterator<Item = &Change> {
    pending.iter().flat_map(move |p| {
        let numbered = p.changes.iter().zip(p.base + 1..);
        numbered.filter(move |(_, n)| *n > seq).map(|(change, _)| change)
    })
}

/// How many of the changes make the first transaction: readers page by transactions, and a start
/// that is written late, with its outcome, is one of its own (surface 10).
fn transaction_end(changes: &[Change]) -> usize {
    let started = changes.iter().position(|change| match change {
        Change::Event(event) => event.event_type() == EventType::WorkflowTaskStarted,
        _ => false,
    });
    started.map_or(changes.len(), |at| at + 1)
}

/// The wire form of a slot's changes, with a checkpoint when one is due.
fn part(
    slot: Slot,
    seq: ChangeSeq,
    changes: &[Change],
    mark: &mut FoldMark,
    state: Option<&dyn Fn() -> Bytes>,
) -> SlotPart {
    let mut wire = Vec::with_capacity(changes.len());
    for change in changes {
        let (tag, body) = change.encode();
        mark.count(tag, body.len());
        wire.push(WireChange { tag, body });
    }
    let checkpoint = state.filter(|_| mark.is_due()).map(|state| state());
    if let Some(state) = &checkpoint {
        mark.written(state.len());
    }
    SlotPart { slot, base: seq - changes.len() as u64, changes: wire, checkpoint, drop: false }
}

fn dropped(slot: Slot, base: ChangeSeq) -> SlotPart {
    SlotPart { slot, base, changes: Vec::new(), checkpoint: None, drop: true }
}

fn quarantined(key: &ExecutionKey) -> Rejection {
    let message = format!("workflow {} is quarantined after an internal failure", key.id);
    Rejection::new(Code::Internal, message)
}
