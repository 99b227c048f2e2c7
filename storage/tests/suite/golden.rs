//! The bytes on disk, pinned. A line of this file changes only together with the format version.

use bytes::Bytes;
use holdfast_engine::ids::{Archetype, ExecutionKey, Hlc, Slot, Uuid};
use holdfast_storage::tables::backlog::{BacklogKey, QueueKey, Task};
use holdfast_storage::tables::checkpoint::{Checkpoint, CheckpointKey};
use holdfast_storage::tables::counter::{self, CounterKey};
use holdfast_storage::tables::deadline::DeadlineKey;
use holdfast_storage::tables::history::{Batch, HistoryKey};
use holdfast_storage::tables::journal::{self, Item, JournalKey};
use holdfast_storage::tables::meta::{
    self, Applied, AppliedKey, LowWaterKey, RegistryKey, Synced, SyncedKey,
};
use holdfast_storage::tables::visibility::{self, IndexKey, RecordKey, Sort};
use holdfast_storage::tables::{Key, RunKey, SlotKey, Table};

/// Hexadecimal, with runs of one byte shortened: `2a*16` is sixteen times 2a.
fn hex(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|a, b| a == b).map(|run| match run.len() {
        count @ 4.. => format!("{:02x}*{count}", run[0]),
        count => format!("{:02x}", run[0]).repeat(count),
    });
    runs.collect::<Vec<_>>().join(" ")
}

fn execution() -> ExecutionKey {
    ExecutionKey::workflow(Uuid([0xaa; 16]), "w\0")
}

const RUN: Uuid = Uuid([0xbb; 16]);

fn keys() -> Vec<Bytes> {
    let run = RunKey { shard: 3, execution: execution(), run: RUN };
    let slot = |slot| SlotKey { shard: 3, execution: execution(), slot };
    let (namespace, archetype) = (execution().namespace, Archetype::Workflow);
    let queue = QueueKey { shard: 3, namespace, queue: "q".into(), task_type: 1 };
    let sort = |closed| Sort { closed, started: Hlc(2), run: RUN };
    let index = |closed| IndexKey {
        shard: 3,
        namespace,
        index: 1,
        value: b"t".to_vec(),
        sort: sort(closed),
        archetype,
    };
    vec![
        HistoryKey { run, first: 5 }.encode(),
        JournalKey { slot: slot(Slot::Run(RUN)), base: 6 }.encode(),
        CheckpointKey { slot: slot(Slot::Id) }.encode(),
        DeadlineKey { shard: 3, at: Hlc(7), execution: execution(), run: RUN }.encode(),
        BacklogKey {
            queue,
            subqueue: "s".into(),
            priority: 2,
            pass: 3,
            at: Hlc(4),
            run: RUN,
            event: 5,
        }
        .encode(),
        RecordKey { shard: 3, namespace, archetype, run: RUN }.encode(),
        index(None).encode(),
        index(Some(Hlc(9))).encode(),
        CounterKey { shard: 3, namespace, kind: 1, name: "n".into(), sub: vec![0] }.encode(),
        AppliedKey { group: 4 }.encode(),
        RegistryKey { group: 0, kind: 1, key: b"default".to_vec() }.encode(),
        LowWaterKey { group: 4, table: Table::Deadline, part: Vec::new() }.encode(),
        SyncedKey { group: 4 }.encode(),
    ]
}

#[test]
fn keys_are_pinned() {
    let found: Vec<String> = keys().iter().map(|key| hex(key)).collect();
    let expected = include_str!("golden_keys.txt");
    assert_eq!(found.join("\n"), expected.trim_end());
}

#[test]
fn values_are_pinned() {
    let applied = Applied {
        last: Some((1, 2)),
        membership: Bytes::from("m"),
        reign: (3, 4),
        next_seq: 5,
        hlc: Hlc(6),
    };
    let task = Task { execution: execution(), attempt: 1, stamp: 2, expires_at: Hlc(3) };
    let items =
        [Item::Change { tag: 9, bytes: Bytes::from("c") }, Item::Events { first: 3, last: 4 }];
    let found = [
        Batch { events: vec![Bytes::from("e1"), Bytes::from("e2")] }.to_value(),
        journal::to_value(&items),
        Checkpoint { seq: 8, state: Bytes::from("s") }.to_value(),
        DeadlineKey::value(),
        task.to_value(),
        visibility::to_value(b"r"),
        counter::to_value(-2),
        applied.to_value(),
        meta::registry_to_value(b"thing"),
        meta::low_water_to_value(&[4]),
        Synced { position: 1, term: 2, index: 3, lost: true }.to_value(),
    ];
    let found: Vec<String> = found.iter().map(|value| hex(value)).collect();
    let expected = include_str!("golden_values.txt");
    assert_eq!(found.join("\n"), expected.trim_end());
}
