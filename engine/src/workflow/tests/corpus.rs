//! Rule 6 of DESIGN 3: the meaning of a change never changes (A9).
//!
//! `corpus/` holds one story per release, as bytes: every change that was written, and a digest of
//! the state after it. Each later build must decode the same bytes and fold them to the same
//! digests. A file in it is never edited; what a new release adds is a new file.
//!
//! ```text
//! slot tag body digest      slot: `id` or the number of a run; body and digest in hexadecimal
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::{fail_task, payloads};
use crate::change::Change;
use crate::id_record::{self, IdRecord};
use crate::ids::Hlc;
use crate::input::{Input, Reply};
use crate::live;
use crate::rows::Dirty;
use crate::testing::completion;
use crate::workflow::rig::{self, Rig, SECOND};
use crate::workflow::{self, State};

/// Every release, the newest last.
const CORPUS: [(&str, &str); 1] = [("0.1", include_str!("corpus/0.1.txt"))];

/// What the lines of a corpus fold to.
#[derive(Default)]
struct Folded {
    record: IdRecord,
    runs: BTreeMap<String, State>,
}

impl Folded {
    /// Folds one change; gives the digest of its slot.
    fn fold(&mut self, slot: &str, change: &Change) -> u64 {
        if slot == "id" {
            id_record::apply(&mut self.record, change);
            return xxh3_64(&self.record.encode_to_vec());
        }
        let state = self.runs.entry(slot.to_owned()).or_insert_with(live::fresh);
        workflow::apply(state, change, &mut Dirty::default());
        xxh3_64(&state.encode_to_vec())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("-"), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.strip_prefix('-').expect("a body begins with a dash");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn what_was_written_once_still_means_the_same() {
    for (release, text) in CORPUS {
        let mut folded = Folded::default();
        for (number, line) in (1..).zip(text.lines()) {
            let [slot, tag, body, digest] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{release}, line {number}: {line}");
            };
            let tag: u16 = tag.parse().expect("a tag");
            let body = bytes(body);
            let change = Change::decode(tag, &body).expect("known for ever");
            assert_eq!(change.encode(), (tag, body.into()), "{release}, line {number}: re-encoded");
            let now = format!("{:016x}", folded.fold(slot, &change));
            assert_eq!(now, digest, "{release}, line {number}: {change:?} means something else");
        }
    }
}

#[test]
fn every_kind_of_change_is_in_the_corpus() {
    let known = (0..1000).filter(|tag| Change::decode(*tag, &[]).is_ok());
    let there = |tag: &u16| {
        let tag = tag.to_string();
        CORPUS.iter().any(|(_, text)| text.lines().any(|l| l.split(' ').nth(1) == Some(&tag)))
    };
    let missing: Vec<u16> = known.filter(|tag| !there(tag)).collect();
    assert!(
        missing.is_empty(),
        "tags {missing:?} are in no corpus; let `story` write them and add this as a new file:\n{}",
        story()
    );
}

/// A run that makes every kind of change once or more.
fn story() -> String {
    let mut rig = Rig::start();
    let world = &mut rig.world;
    world.signal("early", "r1");
    let task = world.poll();
    let mut sticky = completion(vec![
        rig::activity("a", |a| {
            a.start_to_close_timeout = rig::seconds(60);
            a.heartbeat_timeout = rig::seconds(1);
        }),
        rig::start_timer("t", rig::seconds(1)),
        rig::record_marker("m"),
    ]);
    sticky.sticky_attributes = Some(super::random::sticky_attributes());
    world.complete_with(&task.token, sticky);
    let attempt = rig.poll_activity().expect("an activity task");
    rig.pass(SECOND / 2);
    rig.heartbeat(&attempt, Some(payloads("1"))).expect("accepted");
    rig.pass(SECOND * 3 / 4);
    rig.fail_activity(&attempt, None).expect("accepted");
    // The timer has fired and made a task; while it is held another timer fires into the buffer.
    rig.turn(vec![rig::start_timer("u", rig::seconds(1))]).expect("completes");
    rig.signal();
    let held = rig.world.poll();
    rig.pass(2 * SECOND);
    rig.signal();
    rig.complete(&held, vec![rig::cancel_timer("u")], false).expect("completes");
    // The clock is set back by an hour.
    rig.world.now = Hlc(rig.world.now.0 - 3_600 * SECOND);
    rig.signal();
    // A task that fails, its second attempt that times out, a third that ends the run.
    let world = &mut rig.world;
    let task = world.poll();
    fail_task(world, &task.token);
    world.poll();
    world.flush();
    rig.pass(11 * SECOND);
    rig.turn(vec![super::complete_run()]).expect("completes");
    let run = rig.world.current();
    assert!(matches!(rig.decide(Input::Delete { run }), Ok(Reply::Done)));
    written(&rig)
}

fn written(rig: &Rig) -> String {
    let mut out = String::new();
    let mut folded = Folded::default();
    let runs = rig.world.runs.values().zip(1..).map(|(run, n)| (n.to_string(), &run.log));
    for (slot, log) in [("id".to_owned(), &rig.world.record_log)].into_iter().chain(runs) {
        for (tag, body) in log {
            let change = Change::decode(*tag, body).expect("just encoded");
            let digest = folded.fold(&slot, &change);
            let _ = writeln!(out, "{slot} {tag} {} {digest:016x}", hex(body));
        }
    }
    out
}
