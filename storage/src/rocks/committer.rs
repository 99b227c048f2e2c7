//! The one thread that writes the log: everything that arrives while one sync runs goes into the
//! next. No timer, no linger.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rocksdb::WriteBatch;

use crate::StorageError;

/// Called when a write or sync of the log has failed, after every waiting callback has been told.
/// After a failed sync the page cache can't be trusted: production ends the process here.
pub type OnFatal = Arc<dyn Fn(StorageError) + Send + Sync>;

/// The log's own position: RocksDB's sequence number behind a write.
pub(super) type Position = u64;

/// Runs on the committer's thread once the write is durable, or has failed.
pub(super) type After = Box<dyn FnOnce(Result<Position, StorageError>) + Send>;

/// Writes a batch and syncs it.
pub(super) type Sink = Box<dyn FnMut(WriteBatch) -> Result<Position, StorageError> + Send>;

pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write, or an end to come to.
    wake: Condvar,
    /// What waited has been taken.
    room: Condvar,
    limit: usize,
    written: AtomicU64,
    on_fatal: OnFatal,
}

#[derive(Default)]
struct Queue {
    batch: WriteBatch,
    after: Vec<After>,
    bytes: usize,
    /// The number of the batch that gathers now, from 1.
    number: u64,
    urgent: bool,
    stop: bool,
    failed: Option<StorageError>,
}

impl Committer {
    /// Starts the thread. At most about `limit` bytes wait.
    pub(super) fn start(
        sink: Sink,
        limit: usize,
        on_fatal: OnFatal,
    ) -> Result<Committer, StorageError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { number: 1, ..Queue::default() }),
            wake: Condvar::new(),
            room: Condvar::new(),
            limit,
            written: AtomicU64::new(0),
            on_fatal,
        });
        let inner = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("log-committer".into())
            .spawn(move || inner.run(sink))
            .map_err(|why| super::failed("starting the log's thread", &why))?;
        Ok(Committer { shared, thread: Some(thread) })
    }

    /// Waits until fewer bytes wait than the limit. Call it before taking a lock that a callback
    /// takes. A callback itself does not wait: it would wait for itself.
    pub(super) fn wait_for_room(&self) {
        if self.is_here() {
            return;
        }
        let mut queue = self.shared.queue();
        while queue.bytes >= self.shared.limit && queue.failed.is_none() {
            queue = self.shared.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds writes to the batch that gathers and gives its number. What is not urgent goes with
    /// the next that is. After a failure nothing is added and `after` comes back.
    pub(super) fn submit(
        &self,
        bytes: usize,
        urgent: bool,
        fill: impl FnOnce(&mut WriteBatch),
        after: After,
    ) -> Result<u64, (After, StorageError)> {
        let mut queue = self.shared.queue();
        if let Some(why) = &queue.failed {
            return Err((after, why.clone()));
        }
        fill(&mut queue.batch);
        queue.after.push(after);
        queue.bytes += bytes;
        // What is lazy must not fill the queue either: nobody would come to empty it.
        if urgent || queue.bytes >= self.shared.limit {
            queue.urgent = true;
            self.shared.wake.notify_one();
        }
        Ok(queue.number)
    }

    /// Whether the caller runs on the committer's thread.
    fn is_here(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id())
    }

    /// The number of the last batch on disk; each is one sync.
    pub(super) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }
}

impl Drop for Committer {
    /// Writes what waits, lazy writes included, and ends the thread.
    fn drop(&mut self) {
        self.shared.queue().stop = true;
        self.shared.wake.notify_one();
        // The last handle may be held by a callback, which runs on that very thread.
        if self.is_here() {
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread has panicked");
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut sink: Sink) {
        // A callback that panics must not leave a node that waits for ever.
        let _guard = EndOnPanic(self);
        while let Some((number, batch, after)) = self.take() {
            match sink(batch) {
                Ok(position) => {
                    self.written.store(number, Ordering::Release);
                    for call in after {
                        call(Ok(position));
                    }
                }
                Err(why) => return self.fail(after, &why),
            }
        }
    }

    /// The next batch; `None` when all is written and nothing will come.
    fn take(&self) -> Option<(u64, WriteBatch, Vec<After>)> {
        let mut queue = self.queue();
        while !queue.urgent && !queue.stop {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.after.is_empty() {
            return None;
        }
        let number = queue.number;
        queue.number += 1;
        queue.urgent = false;
        queue.bytes = 0;
        let taken = (std::mem::take(&mut queue.batch), std::mem::take(&mut queue.after));
        drop(queue);
        self.room.notify_all();
        Some((number, taken.0, taken.1))
    }

    fn fail(&self, mut after: Vec<After>, why: &StorageError) {
        tracing::error!(%why, "the log can't be written");
        let mut queue = self.queue();
        queue.failed = Some(why.clone());
        after.append(&mut queue.after);
        drop(queue);
        self.room.notify_all();
        for call in after {
            call(Err(why.clone()));
        }
        (self.on_fatal)(why.clone());
    }
}

struct EndOnPanic<'a>(&'a Shared);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let why = StorageError::Io("a callback of the log has panicked".into());
            self.0.fail(Vec::new(), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink that reports each batch's size and waits for its result.
    struct Rig {
        committer: Committer,
        batches: Receiver<usize>,
        results: Sender<Result<Position, StorageError>>,
        done: Receiver<(u32, Result<Position, StorageError>)>,
        tell: Sender<(u32, Result<Position, StorageError>)>,
        fatal: Receiver<StorageError>,
    }

    fn rig(limit: usize) -> Rig {
        let (batch, batches) = channel();
        let (results, result) = channel();
        let (tell, done) = channel();
        let (ended, fatal) = channel();
        let sink: Sink = Box::new(move |written: WriteBatch| {
            batch.send(written.len()).expect("the test listens");
            result.recv().unwrap_or(Ok(99))
        });
        let ended = Mutex::new(ended);
        let on_fatal: OnFatal = Arc::new(move |why| {
            ended.lock().expect("one thread").send(why).expect("the test listens");
        });
        let committer = Committer::start(sink, limit, on_fatal).expect("starts");
        Rig { committer, batches, results, done, tell, fatal }
    }

    impl Rig {
        fn submit(&self, n: u32, urgent: bool) -> Result<u64, StorageError> {
            let tell = self.tell.clone();
            let after: After = Box::new(move |result| {
                tell.send((n, result)).expect("the test listens");
            });
            let fill = |batch: &mut WriteBatch| batch.put(n.to_be_bytes(), b"x");
            self.committer.submit(10, urgent, fill, after).map_err(|(_, why)| why)
        }
    }

    #[test]
    fn what_arrives_during_a_sync_goes_into_the_next() {
        let rig = rig(1000);
        rig.submit(0, true).expect("open");
        assert_eq!(rig.batches.recv(), Ok(1));
        for n in 1..=5 {
            assert_eq!(rig.submit(n, n % 2 == 0).expect("open"), 2);
        }
        assert!(rig.done.try_recv().is_err(), "told before the sync");
        rig.results.send(Ok(7)).expect("waits");
        assert_eq!(rig.batches.recv(), Ok(5));
        assert_eq!(rig.done.recv().expect("told").0, 0);
        assert!(rig.done.try_recv().is_err(), "told before the sync");
        rig.results.send(Ok(12)).expect("waits");
        for n in 1..=5 {
            let (told, result) = rig.done.recv().expect("told");
            assert_eq!((told, result.expect("synced")), (n, 12));
        }
        assert_eq!(rig.committer.written(), 2);
    }

    #[test]
    fn a_lazy_write_waits_for_company_or_the_end() {
        let rig = rig(1000);
        rig.submit(0, false).expect("open");
        assert_eq!(rig.committer.written(), 0);
        rig.submit(1, true).expect("open");
        assert_eq!(rig.batches.recv(), Ok(2));
        rig.results.send(Ok(2)).expect("waits");
        assert!(rig.done.recv().expect("told").1.is_ok());
        rig.submit(2, false).expect("open");
        drop(rig.results);
        drop(rig.committer);
        assert_eq!(rig.batches.recv(), Ok(1));
    }

    #[test]
    fn a_full_queue_holds_its_callers() {
        let rig = rig(20);
        rig.submit(0, true).expect("open");
        assert_eq!(rig.batches.recv(), Ok(1));
        // Two lazy writes fill the queue, which makes them urgent.
        rig.submit(1, false).expect("open");
        rig.submit(2, false).expect("open");
        thread::scope(|scope| {
            let waits = scope.spawn(|| rig.committer.wait_for_room());
            rig.results.send(Ok(1)).expect("waits");
            assert_eq!(rig.batches.recv(), Ok(2));
            waits.join().expect("there is room again");
        });
        rig.results.send(Ok(3)).expect("waits");
    }

    #[test]
    fn a_failure_tells_everybody_and_ends() {
        let rig = rig(1000);
        rig.submit(0, true).expect("open");
        assert_eq!(rig.batches.recv(), Ok(1));
        rig.submit(1, true).expect("open");
        rig.submit(2, false).expect("open");
        rig.results.send(Err(StorageError::Io("no".into()))).expect("waits");
        assert_eq!(rig.fatal.recv().expect("ends").to_string(), "storage failed: no");
        for n in 0..=2 {
            let (told, result) = rig.done.try_recv().expect("told before the end");
            assert_eq!((told, result.is_err()), (n, true));
        }
        assert!(rig.submit(3, true).is_err());
        rig.committer.wait_for_room();
        assert_eq!(rig.committer.written(), 0);
    }

    #[test]
    fn a_panic_in_a_callback_ends_too() {
        let rig = rig(1000);
        let boom: After = Box::new(|_| panic!("a callback of the test"));
        assert!(rig.committer.submit(1, true, |batch| batch.put(b"k", b"v"), boom).is_ok());
        rig.results.send(Ok(1)).expect("waits");
        assert!(rig.fatal.recv().expect("ends").to_string().contains("panicked"));
    }
}
