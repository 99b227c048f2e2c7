//! openraft on tokio, with two things added: random numbers that follow from a seed, and task
//! groups, so that a node among several on one runtime can be killed (`raft-sim-storage.md` 10).

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::{AsyncRuntime, TokioRuntime};
use tokio::task::{AbortHandle, JoinHandle};

use crate::host::SplitMix;

tokio::task_local! {
    static GROUP: Member;
}

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What threads that were never seeded start from.
static PROCESS_SEED: AtomicU64 = AtomicU64::new(0);

/// The tasks of one node: what is spawned inside [`TaskGroup::scope`], and all that those spawn.
#[derive(Default)]
pub struct TaskGroup {
    state: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    killed: bool,
    places: Vec<Place>,
    /// The places that are free.
    free: Vec<usize>,
}

/// A task of a group. Its handle goes when it ends: the handle keeps the memory of the task, and a
/// node spawns one for each message.
enum Place {
    Free,
    /// The task is being spawned.
    Taken,
    /// The task ended before its handle was here.
    Ended,
    Runs(AbortHandle),
}

/// What a task knows of its group. It is dropped with the task.
struct Member {
    group: Arc<TaskGroup>,
    /// Unless it only runs in the scope of the group.
    place: Option<usize>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(at) = self.place {
            self.group.leave(at);
        }
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskGroup")
    }
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Arc<TaskGroup> {
        Arc::default()
    }

    /// The group of the running task, if it is in one.
    pub fn current() -> Option<Arc<TaskGroup>> {
        GROUP.try_with(|member| Arc::clone(&member.group)).ok()
    }

    /// Runs `future` as part of this group, in the calling task.
    pub async fn scope<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        GROUP.scope(self.member(None), future).await
    }

    /// Spawns a task of this group.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let at = self.take_place();
        let task = tokio::spawn(GROUP.scope(self.member(Some(at)), future));
        self.adopt(at, task.abort_handle());
        task
    }

    /// Ends every task of the group where it stands, now and whenever one is spawned later.
    pub fn kill(&self) {
        let killed = Tasks { killed: true, ..Tasks::default() };
        let before = std::mem::replace(&mut *self.tasks(), killed);
        for place in &before.places {
            if let Place::Runs(handle) = place {
                handle.abort();
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(self: &Arc<Self>, place: Option<usize>) -> Member {
        Member { group: Arc::clone(self), place }
    }

    fn take_place(&self) -> usize {
        let mut tasks = self.tasks();
        let at = tasks.free.pop().unwrap_or(tasks.places.len());
        match tasks.places.get_mut(at) {
            Some(place) => *place = Place::Taken,
            None => tasks.places.push(Place::Taken),
        }
        at
    }

    fn adopt(&self, at: usize, handle: AbortHandle) {
        let mut tasks = self.tasks();
        if tasks.killed {
            drop(tasks);
            handle.abort();
        } else if let Some(place @ Place::Taken) = tasks.places.get_mut(at) {
            *place = Place::Runs(handle);
        } else {
            tasks.vacate(at);
        }
    }

    /// The task at a place ends.
    fn leave(&self, at: usize) {
        let mut tasks = self.tasks();
        match tasks.places.get_mut(at) {
            Some(place @ Place::Taken) => *place = Place::Ended,
            _ => tasks.vacate(at),
        }
    }
}

impl Tasks {
    fn vacate(&mut self, at: usize) {
        if let Some(place) = self.places.get_mut(at) {
            *place = Place::Free;
            self.free.push(at);
        }
    }
}

/// The runtime that openraft is given.
#[derive(Debug)]
pub struct Rt(TokioRuntime);

impl Rt {
    /// Sets what openraft's random numbers follow from, on this thread and on threads that draw
    /// for the first time after this.
    pub fn seed(seed: u64) {
        PROCESS_SEED.store(seed, Ordering::Relaxed);
        SEED.set(Some(seed));
    }

    /// Spawns a task into the group of the caller.
    pub fn spawn_task<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match TaskGroup::current() {
            Some(group) => group.spawn(future),
            None => tokio::spawn(future),
        }
    }
}

fn next_seed() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let seed = SEED
        .get()
        .unwrap_or_else(|| PROCESS_SEED.fetch_add(STEP.rotate_left(32), Ordering::Relaxed));
    SEED.set(Some(seed.wrapping_add(STEP)));
    SplitMix(seed).next()
}

/// One short-lived source of openraft's random numbers.
pub struct RaftRng(SplitMix);

impl rand_core::TryRng for RaftRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Rt {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = RaftRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        Rt::spawn_task(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> RaftRng {
        RaftRng(SplitMix(next_seed()))
    }

    fn new(threads: usize) -> Rt {
        Rt(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw() -> Vec<u64> {
        (0..4).map(|_| rand_core::Rng::next_u64(&mut Rt::thread_rng())).collect()
    }

    #[test]
    fn random_numbers_follow_from_the_seed() {
        Rt::seed(5);
        let first = draw();
        Rt::seed(5);
        assert_eq!(draw(), first);
        Rt::seed(6);
        assert_ne!(draw(), first);
    }

    #[tokio::test]
    async fn a_group_forgets_tasks_that_ended() {
        let group = TaskGroup::new();
        for _ in 0..10 {
            let two = [group.spawn(async {}), group.spawn(async {})];
            for task in two {
                task.await.expect("ends");
            }
        }
        let stays = group.spawn(std::future::pending::<()>());
        let counts = || {
            let tasks = group.tasks();
            let runs = tasks.places.iter().filter(|place| matches!(place, Place::Runs(_))).count();
            (tasks.places.len(), tasks.free.len(), runs)
        };
        assert_eq!(counts(), (2, 1, 1));
        group.kill();
        assert!(stays.await.is_err_and(|end| end.is_cancelled()));
    }

    #[test]
    fn a_task_that_ends_before_it_is_known_leaves_nothing() {
        let group = TaskGroup::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        let handle = runtime.spawn(async {}).abort_handle();
        let at = group.take_place();
        group.leave(at);
        assert!(group.tasks().free.is_empty(), "the place is not another task's yet");
        group.adopt(at, handle);
        let tasks = group.tasks();
        assert!(matches!(tasks.places[..], [Place::Free]) && tasks.free == [at]);
    }

    #[tokio::test]
    async fn killing_a_group_ends_its_tasks_and_theirs() {
        let group = TaskGroup::new();
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<()>();
        group.spawn(async move {
            let inner = tx.clone();
            Rt::spawn_task(async move {
                std::future::pending::<()>().await;
                drop(inner);
            });
            std::future::pending::<()>().await;
            drop(tx);
        });
        tokio::task::yield_now().await;
        group.kill();
        assert_eq!(rx.recv().await, None, "both senders are gone");
        let late = group.spawn(std::future::pending::<()>());
        assert!(late.await.is_err_and(|end| end.is_cancelled()));
    }
}
