//! Group 0: its leader decides commands on the registry, one after the other, and every node keeps
//! a copy that follows what is applied.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_engine::IdSource;
use holdfast_engine::namespace::{self, Command, Outcome, RegistryChange};
use holdfast_storage::tables::meta::{RegistryKey, registry_to_value};
use holdfast_storage::tables::{delete, put};
use holdfast_storage::{Op, StorageError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::entry::{Reign, ShardEntry};
use crate::group::Group;
use crate::host::Host;
use crate::machine::{Ended, Proposed};
use crate::registry::{self, META_GROUP, RegistryWatch};
use crate::rt::Rt;
use crate::shard::SubmitError;

/// Commands that wait for group 0; one more is refused.
const WAITING: usize = 256;

type Asked = (Command, oneshot::Sender<Result<Outcome, SubmitError>>);

/// The way to group 0.
pub(crate) struct MetaHandle {
    group: Group,
    commands: mpsc::Sender<Asked>,
    refresh: mpsc::Sender<oneshot::Sender<()>>,
}

const NO_LEADER: SubmitError = SubmitError::Unavailable("the meta group has no leader here");
const LOST: SubmitError =
    SubmitError::Unavailable("leadership of the meta group was lost, outcome unknown");

impl MetaHandle {
    /// Has a command decided and agreed on.
    pub(crate) async fn command(&self, command: Command) -> Result<Outcome, SubmitError> {
        let (sender, answer) = oneshot::channel();
        self.commands
            .try_send((command, sender))
            .map_err(|_| SubmitError::Unavailable("the meta group is overloaded"))?;
        answer.await.map_err(|_| NO_LEADER)?
    }

    /// Returns when this node's copy shows everything acknowledged before this call.
    pub(crate) async fn catch_up(&self) -> Result<(), SubmitError> {
        self.group.read_index().await.map_err(|_| NO_LEADER)?;
        let (sender, done) = oneshot::channel();
        self.refresh.send(sender).await.map_err(|_| NO_LEADER)?;
        done.await.map_err(|_| NO_LEADER)
    }
}

/// Starts the duties of group 0 on this node.
pub(crate) fn start(
    host: &Host,
    group: Group,
    ended: Option<mpsc::UnboundedReceiver<Ended>>,
    stop: watch::Receiver<bool>,
) -> Result<(MetaHandle, RegistryWatch, JoinHandle<()>), StorageError> {
    let (commands, asked) = mpsc::channel(WAITING);
    let (refresh, refreshes) = mpsc::channel(WAITING);
    let (show, shown) = watch::channel(Arc::new(registry::read(host.store.as_ref())?));
    let (_, never) = mpsc::unbounded_channel();
    let meta = Meta {
        host: host.clone(),
        group: group.clone(),
        ended: ended.unwrap_or(never),
        asked,
        refreshes,
        show,
    };
    let task = Rt::spawn_task(meta.run(stop));
    Ok((MetaHandle { group, commands, refresh }, RegistryWatch::new(shown), task))
}

/// How long a node waits before it tries again to make the token key.
const KEY_AGAIN: Duration = Duration::from_millis(50);

/// The secret that seals tokens. The first leader that finds none makes one; the others wait until
/// they have applied it, since a node has no use of its own without.
pub(crate) async fn token_secret(
    host: &Host,
    registry: &RegistryWatch,
    meta: &MetaHandle,
) -> Result<[u8; 32], crate::group::GroupError> {
    let mut registry = registry.clone();
    loop {
        let secret = registry.newest().sealing_key().map(|key| key.secret.to_vec());
        if let Some(secret) = secret.and_then(|secret| secret.try_into().ok()) {
            return Ok(secret);
        }
        tokio::select! {
            biased;
            () = registry.changed() => continue,
            serving = meta.group.await_serving() => drop(serving?),
        }
        let halves = [host.rng.next_u128().to_be_bytes(), host.rng.next_u128().to_be_bytes()];
        let secret = Bytes::from(halves.concat());
        // Does nothing when another node was quicker; its key is seen on the next look.
        let made = meta.command(Command::InstallTokenKey { secret }).await;
        if made.is_err() || meta.catch_up().await.is_err() {
            // A leader that is cut off still counts as one, and refuses at once.
            tokio::time::sleep(KEY_AGAIN).await;
        }
    }
}

struct Meta {
    host: Host,
    group: Group,
    ended: mpsc::UnboundedReceiver<Ended>,
    asked: mpsc::Receiver<Asked>,
    refreshes: mpsc::Receiver<oneshot::Sender<()>>,
    show: watch::Sender<Arc<namespace::Registry>>,
}

/// A reign of group 0.
struct Reigning {
    term: u64,
    reign: Reign,
    next_seq: u64,
}

impl Meta {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut applied = self.group.applied();
        let mut reigning: Option<Reigning> = None;
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                changed = applied.changed() => {
                    if changed.is_err() || self.read().is_err() {
                        return;
                    }
                }
                Some(done) = self.refreshes.recv() => {
                    if self.read().is_err() {
                        return;
                    }
                    let _ = done.send(());
                }
                Some((command, sender)) = self.asked.recv() => {
                    let answer = match self.reign(reigning.take()).await {
                        Ok(mut current) => {
                            let answer = self.command(&mut current, command).await;
                            reigning = answer_keeps_reign(&answer).then_some(current);
                            answer
                        }
                        Err(why) => Err(why),
                    };
                    let _ = sender.send(answer);
                }
            }
        }
    }

    fn read(&self) -> Result<(), StorageError> {
        let registry = registry::read(self.host.store.as_ref()).inspect_err(|why| {
            tracing::error!(%why, "the registry can't be read: the meta group stops here");
        })?;
        self.show.send_replace(Arc::new(registry));
        Ok(())
    }

    /// The reign to decide in: the current one, or a new one in a new term or after a failure.
    async fn reign(&mut self, current: Option<Reigning>) -> Result<Reigning, SubmitError> {
        let term = (*self.group.leadership().borrow()).ok_or(NO_LEADER)?;
        if let Some(current) = current.filter(|current| current.term == term) {
            return Ok(current);
        }
        self.group.barrier().await.map_err(|_| NO_LEADER)?;
        while self.ended.try_recv().is_ok() {}
        let state = self.group.state().map_err(|_| NO_LEADER)?;
        let counter = if state.reign.term == term { state.reign.counter + 1 } else { 1 };
        self.read().map_err(|_| NO_LEADER)?;
        Ok(Reigning { term, reign: Reign { term, counter }, next_seq: 0 })
    }

    /// Decides on what is committed alone: one command at a time.
    async fn command(
        &mut self,
        current: &mut Reigning,
        command: Command,
    ) -> Result<Outcome, SubmitError> {
        let now = self.host.clock.now();
        let ids = IdSource::new(self.host.rng.next_u64());
        let registry = self.show.borrow().clone();
        let decided = namespace::decide(&registry, command, now, &ids);
        let rows = match &decided {
            Ok((_, rows)) => rows.clone(),
            Err(_) => Vec::new(),
        };
        if rows.is_empty() {
            // No answer leaves before this node is known to lead still (DESIGN 3.1).
            self.group.read_index().await.map_err(|_| NO_LEADER)?;
            return Ok(decided?.0);
        }
        let mut entry = ShardEntry::new(current.reign, current.next_seq, now);
        entry.control = rows.iter().map(op).collect();
        let seq = current.next_seq;
        let bytes = entry.encode().map_err(|_| NO_LEADER)?;
        self.group.propose(current.term, bytes).await;
        current.next_seq += 1;
        loop {
            let ended = self.ended.recv().await.ok_or(LOST)?;
            if ended.reign != current.reign || ended.seq != seq {
                continue;
            }
            return match ended.how {
                Proposed::Accepted { .. } => {
                    self.read().map_err(|_| LOST)?;
                    Ok(decided?.0)
                }
                Proposed::Skipped { .. } | Proposed::Refused => Err(NO_LEADER),
                Proposed::Unknown => Err(LOST),
            };
        }
    }
}

/// Waits until the node stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A reign ends with the first answer that does not come from a rule.
fn answer_keeps_reign(answer: &Result<Outcome, SubmitError>) -> bool {
    !matches!(answer, Err(SubmitError::Unavailable(_)))
}

fn op(row: &RegistryChange) -> Op {
    let key = RegistryKey { group: META_GROUP, kind: row.kind as u8, key: row.key.to_vec() };
    match &row.value {
        Some(value) => put(&key, registry_to_value(value)),
        None => delete(&key),
    }
}
