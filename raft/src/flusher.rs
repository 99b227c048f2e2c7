//! The flush watcher: makes the tables durable now and then, and only then lets go of the log
//! below them (DESIGN 7, A4). Nothing else purges.
//!
//! A flush blocks for the disk. In the server it runs on a thread of its own, so that no shard
//! waits for it; where threads would cost determinism (memory stores, the simulator) it runs in
//! place.

use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::{StorageError, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::group::Group;
use crate::rt::Rt;

/// Where a flush blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushOn {
    /// On a thread that does nothing else: the server.
    Thread,
    /// In the flusher's own task, which then waits this long before it says that it is done: stores
    /// whose flush does not wait for a disk. What is applied meanwhile is not in the flush.
    Task(Duration),
}

/// When to flush, and how much log to keep.
#[derive(Clone, Copy, Debug)]
pub struct FlushPlan {
    /// Flush when this many bytes are only in memory.
    pub bytes: u64,
    /// Flush when something has been only in memory for this long.
    pub every: Duration,
    /// How often to look.
    pub look: Duration,
    /// How many entries a group with followers keeps below what is durable, so that one that was
    /// away for a moment needs no snapshot. A sole voter keeps none.
    pub keep: u64,
    /// Where a flush blocks.
    pub on: FlushOn,
}

impl Default for FlushPlan {
    fn default() -> Self {
        FlushPlan {
            bytes: 16 << 20,
            every: Duration::from_secs(30),
            look: Duration::from_millis(250),
            keep: 20_000,
            on: FlushOn::Thread,
        }
    }
}

type Flushed = oneshot::Sender<Result<(), StorageError>>;

/// The running flush watcher of a node.
pub struct Flusher {
    asks: mpsc::Sender<Flushed>,
    task: JoinHandle<()>,
}

impl Flusher {
    /// Starts watching, in the task group of the caller. `groups` are those whose logs it purges.
    /// A failed flush is told to `failed` once, and ends the watch: the process must end too,
    /// since what the disk holds is no longer known.
    pub fn start(
        store: Arc<dyn Store>,
        groups: Vec<Group>,
        plan: FlushPlan,
        failed: impl FnOnce(StorageError) + Send + 'static,
    ) -> Flusher {
        let (asks, asked) = mpsc::channel(1);
        let task = Rt::spawn_task(async move {
            let mut watch = Watch { disk: Disk::new(store, plan.on), groups, plan, asked };
            if let Err(why) = watch.run().await {
                tracing::error!(%why, "the tables could not be flushed");
                failed(why);
            }
            watch.disk.close().await;
        });
        Flusher { asks, task }
    }

    /// Flushes and purges now; gives `false` when the watch has ended.
    pub async fn flush(&self) -> Result<bool, StorageError> {
        let (done, flushed) = oneshot::channel();
        if self.asks.send(done).await.is_err() {
            return Ok(false);
        }
        flushed.await.map_or(Ok(false), |result| result.map(|()| true))
    }

    /// Flushes a last time and ends. Called when the groups have stopped: what they applied is
    /// then durable in the tables, and the next start replays nothing.
    ///
    /// Nothing of it holds the store when this returns.
    pub async fn stop(self) -> Result<(), StorageError> {
        let flushed = self.flush().await;
        drop(self.asks);
        if let Err(why) = self.task.await {
            tracing::warn!(%why, "the flush watch did not end by itself");
        }
        flushed.map(drop)
    }
}

struct Watch {
    disk: Disk,
    groups: Vec<Group>,
    plan: FlushPlan,
    asked: mpsc::Receiver<Flushed>,
}

impl Watch {
    async fn run(&mut self) -> Result<(), StorageError> {
        let mut dirty_since = None;
        loop {
            let ask = tokio::select! {
                biased;
                ask = self.asked.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(self.plan.look) => None,
            };
            let bytes = self.disk.store.unflushed_bytes();
            let since = *dirty_since.get_or_insert_with(Instant::now);
            if bytes == 0 {
                dirty_since = None;
            }
            let due = bytes >= self.plan.bytes || (bytes > 0 && since.elapsed() >= self.plan.every);
            if ask.is_none() && !due {
                continue;
            }
            dirty_since = None;
            let result = self.disk.flush().await;
            if result.is_ok() {
                self.purge().await;
            }
            if let Some(ask) = ask {
                drop(ask.send(result.clone()));
            }
            result?;
        }
    }

    async fn purge(&self) {
        for group in &self.groups {
            let keep = if group.is_sole_voter() { 0 } else { self.plan.keep };
            // A group that has stopped keeps its log; the others go on.
            if let Err(why) = group.purge(keep).await {
                tracing::debug!(group = group.id(), %why, "its log is not purged");
            }
        }
    }
}

/// The store, and the thread that flushes it if there is one.
struct Disk {
    store: Arc<dyn Store>,
    on: FlushOn,
    thread: Option<Thread>,
}

/// It ends when `asks` is dropped, and then lets go of the store before it says `ended`.
struct Thread {
    asks: std::sync::mpsc::Sender<Flushed>,
    ended: oneshot::Receiver<()>,
}

impl Disk {
    fn new(store: Arc<dyn Store>, on: FlushOn) -> Disk {
        let thread = match on {
            FlushOn::Task(_) => None,
            FlushOn::Thread => start_thread(Arc::clone(&store)),
        };
        Disk { store, on, thread }
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let Some(thread) = &self.thread else {
            let flushed = self.store.flush();
            if let FlushOn::Task(takes) = self.on
                && !takes.is_zero()
            {
                tokio::time::sleep(takes).await;
            }
            return flushed;
        };
        let (done, flushed) = oneshot::channel();
        let gone = || StorageError::Io("the flush thread has ended".to_owned());
        thread.asks.send(done).map_err(|_| gone())?;
        flushed.await.map_err(|_| gone())?
    }

    async fn close(self) {
        if let Some(Thread { asks, ended }) = self.thread {
            drop(asks);
            // An error means that it ended without saying so.
            let _ = ended.await;
        }
    }
}

/// Without a thread, flushes block the flusher's task.
fn start_thread(store: Arc<dyn Store>) -> Option<Thread> {
    let (asks, asked) = std::sync::mpsc::channel::<Flushed>();
    let (end, ended) = oneshot::channel();
    let flushes = move || {
        for done in asked {
            // Nobody listens when the flusher was aborted.
            let _ = done.send(store.flush());
        }
        drop(store);
        let _ = end.send(());
    };
    match std::thread::Builder::new().name("flush".to_owned()).spawn(flushes) {
        Ok(_) => Some(Thread { asks, ended }),
        Err(why) => {
            tracing::warn!(%why, "no thread for flushes: they will block");
            None
        }
    }
}
