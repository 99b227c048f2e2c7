//! What the players share: the way to the server, whether it is up, the ledger.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::ledger::Ledger;
use crate::Fallible;
use crate::client::Client;
use crate::rng::Rng;
use crate::server::Launch;

const CONNECTIONS: usize = 4;
/// Before a call is made again.
const PAUSE: Duration = Duration::from_millis(10);

/// Shared by all.
pub(crate) struct World {
    clients: Vec<Client>,
    /// Which life of the server this is, and whether it lasts.
    life: watch::Sender<(u64, bool)>,
    acks: watch::Sender<usize>,
    finishing: watch::Sender<bool>,
    ledger: Mutex<Ledger>,
    closed: Mutex<BTreeSet<String>>,
    rng: Mutex<Rng>,
    /// How many workflows to keep open.
    pub(crate) workflows: usize,
}

impl World {
    pub(crate) fn new(launch: &Launch, workflows: usize, rng: Rng) -> Fallible<Arc<Self>> {
        let clients = (0..CONNECTIONS).map(|_| Client::new(launch.port, "crash"));
        Ok(Arc::new(Self {
            clients: clients.collect::<Fallible<_>>()?,
            life: watch::Sender::new((0, false)),
            acks: watch::Sender::new(0),
            finishing: watch::Sender::new(false),
            ledger: Mutex::default(),
            closed: Mutex::default(),
            rng: Mutex::new(rng),
            workflows,
        }))
    }

    /// One of the connections.
    pub(crate) fn client(&self, player: usize) -> Client {
        self.clients[player % CONNECTIONS].clone()
    }

    /// A player's own random numbers.
    pub(crate) fn rng(&self) -> Rng {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    pub(crate) fn rises(&self) {
        self.life.send_modify(|(life, up)| (*life, *up) = (*life + 1, true));
    }

    /// Before the kill, so that whoever's call fails because of it knows why.
    pub(crate) fn falls(&self) {
        self.life.send_modify(|(life, up)| (*life, *up) = (*life + 1, false));
    }

    /// Makes a call until it is answered: done, or refused by a server that was well.
    pub(crate) async fn insist<T, C>(&self, call: impl Fn() -> C) -> Result<T, Status>
    where
        C: Future<Output = Result<T, Status>>,
    {
        let mut life = self.life.subscribe();
        loop {
            let (during, _) = match life.wait_for(|(_, up)| *up).await {
                Ok(now) => *now,
                Err(_) => return Err(Status::cancelled("the suite has ended")),
            };
            match call().await {
                Err(refusal) if self.life.borrow().0 != during || passing(&refusal) => {
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an acknowledgement down.
    pub(crate) fn acknowledge(&self, entry: impl FnOnce(&mut Ledger)) {
        let total = {
            let mut ledger = self.ledger();
            entry(&mut ledger);
            ledger.total()
        };
        self.acks.send_modify(|acks| *acks = total.max(*acks));
    }

    /// A refusal that no well server has a reason for.
    pub(crate) fn unexpected(&self, what: &str, refusal: &Status) {
        self.ledger().violate(format!("{what}: {:?}: {}", refusal.code(), refusal.message()));
    }

    pub(crate) fn acks(&self) -> usize {
        *self.acks.borrow()
    }

    pub(crate) async fn acks_reach(&self, wanted: usize) {
        let mut acks = self.acks.subscribe();
        // The sender is ours: this cannot fail.
        let _open = acks.wait_for(|acks| *acks >= wanted).await;
    }

    pub(crate) async fn filled(&self) {
        while self.ledger().starts < self.workflows {
            sleep(PAUSE).await;
        }
    }

    pub(crate) fn finish(&self) {
        self.finishing.send_replace(true);
    }

    pub(crate) fn finishing(&self) -> bool {
        *self.finishing.borrow()
    }

    pub(crate) fn closes(&self, id: String) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn open(&self) -> Vec<String> {
        let ledger = self.ledger();
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.accounts.keys().filter(|id| !closed.contains(*id)).cloned().collect()
    }

    /// Waits until every workflow has closed. The answer that closed one may be lost, so who is
    /// still thought open is asked for now and then.
    pub(crate) async fn all_closed(&self) {
        loop {
            let open = self.open();
            if open.is_empty() {
                return;
            }
            sleep(Duration::from_millis(500)).await;
            for id in open.iter().take(100) {
                match self.clients[0].status(id).await {
                    // It runs.
                    Ok(1) => {}
                    Err(refusal) if refusal.code() != Code::NotFound => {}
                    // Whatever became of it, also when it was lost, there is nothing to wait for.
                    Ok(_) | Err(_) => self.closes(id.clone()),
                }
            }
        }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.ledger().violations.clone()
    }

    /// The counts, in words.
    pub(crate) fn summary(&self) -> String {
        let open = self.open();
        let ledger = self.ledger();
        let some: Vec<&str> = open.iter().take(5).map(String::as_str).collect();
        format!(
            "acknowledged {} starts, {} signals, {} activity completions, {} workflow tasks; \
             {} workflows open {}",
            ledger.starts,
            ledger.signals,
            ledger.activities,
            ledger.answers,
            open.len(),
            some.join(" ")
        )
    }
}

/// Whether a healthy server may say this to a right call, to be asked again; or whether it is not
/// the server's word at all: a call may still go to the connection that the kill has broken, and
/// what the transport makes of that has a cause, or is `Cancelled`.
fn passing(refusal: &Status) -> bool {
    let asks_again = matches!(
        refusal.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled
    );
    asks_again || std::error::Error::source(refusal).is_some()
}
