//! The server: a data folder, the node on it, and the sockets in front. Built from [`Options`],
//! stopped by [`Server::stop`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_proto::enums::IndexedValueType;
use holdfast_raft::host::{Host, OsRng, system_clock};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::node::{Node, NodeConfig, StartError};
use holdfast_raft::shard::SubmitError;
use holdfast_storage::rocks::{self, Format, Opened};
use holdfast_storage::{Log, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::connections;
use crate::dynamic_config::Settings;
use crate::grpc::Frontend;
use crate::grpc::health::HealthService;
use crate::grpc::reflection::{Reflection, Unreadable};
use crate::service::operator::operator_service_server::OperatorServiceServer;
use crate::service::workflow::workflow_service_server::WorkflowServiceServer;

/// The largest message that is taken, as in gRPC for Go.
const MESSAGE_BYTES: usize = 4 << 20;

/// How the names of private folders begin.
const PRIVATE: &str = "holdfast-dev-";

/// The node's number in a cluster of one.
const NODE: u64 = 1;

/// Where the data of a server is.
#[derive(Clone, Debug)]
pub enum Data {
    /// In a private folder, gone at exit.
    Temporary,
    /// In this folder.
    Folder(PathBuf),
}

/// What a server is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub ip: IpAddr,
    /// Where to listen; 0 takes a free port.
    pub port: u16,
    /// Where the data is.
    pub data: Data,
    /// How many shards the data must have; `None` takes any.
    pub shards: Option<u32>,
    /// How many shards new data gets when `shards` does not say.
    pub shards_of_new: u32,
    /// Limits and intervals.
    pub settings: Settings,
    /// How long a namespace that is made here keeps closed runs.
    pub retention: Duration,
    /// Namespaces that must exist.
    pub namespaces: Vec<String>,
    /// Search attributes that each of these namespaces must have.
    pub search_attributes: BTreeMap<String, IndexedValueType>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nobody else may listen there.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The private folder can't be made.
    #[error("cannot make a folder for the data")]
    Temporary(#[source] io::Error),
    /// Something else is where the data should be.
    #[error("{0} is a file with content and no data folder; name another path")]
    File(PathBuf),
    /// The empty file can't be replaced.
    #[error("cannot replace the empty file {0}")]
    Replace(PathBuf, #[source] io::Error),
    /// The data folder can't be used.
    #[error(transparent)]
    Open(#[from] rocks::OpenError),
    /// The data folder has lost what was acknowledged.
    #[error("the log of {0} ends before writes that had been synced; it is damaged")]
    Lost(PathBuf),
    /// The node does not start.
    #[error("the node does not start")]
    Node(#[from] StartError),
    /// The node starts and does not come to serve.
    #[error("the node does not serve")]
    Serving(#[from] SubmitError),
    /// A namespace or a search attribute can't be made.
    #[error("cannot set up namespace {name}: {reason}")]
    Namespace {
        /// The namespace.
        name: String,
        /// Why.
        reason: String,
    },
    /// The descriptions of the services are broken: the build is.
    #[error("the services cannot be described")]
    Reflection(#[from] Unreadable),
    /// The opening was interrupted.
    #[error("the opening of the data folder was interrupted")]
    Interrupted,
}

/// A server that serves.
pub struct Server {
    address: SocketAddr,
    data: PathBuf,
    node: Node,
    folder: Folder,
    draining: watch::Sender<bool>,
    /// How long calls in flight may take at the end.
    drain: Duration,
    /// Ends what was not done in time.
    cut: CancellationToken,
    serving: JoinHandle<()>,
    // Last, so that it goes when everything that writes into it is gone.
    temporary: Option<tempfile::TempDir>,
}

impl Server {
    /// Opens the data, starts the node, and serves.
    pub fn start(options: Options) -> BoxFuture<'static, Result<Server, ServeError>> {
        Box::pin(async move {
            // The port first: it is the cheapest thing to be refused.
            let wanted = SocketAddr::new(options.ip, options.port);
            let listening = |error| ServeError::Listen(wanted, error);
            let listener = TcpListener::bind(wanted).await.map_err(listening)?;
            let address = listener.local_addr().map_err(listening)?;

            let (data, temporary) = place(&options.data)?;
            let opened = open(&data, options.shards, options.shards_of_new).await?;
            let shards = opened.format.shards;
            let folder = Folder { store: opened.store.clone(), log: opened.log.clone() };
            let host = Host {
                clock: Arc::new(system_clock()),
                rng: Arc::new(OsRng),
                store: opened.store,
                log: opened.log,
                links: LoopLinks::new().node(NODE),
            };
            let limits = options.settings.limits.clone();
            let polls = options.settings.matching.clone();
            let config = NodeConfig { limits, polls, ..NodeConfig::sole(shards) };
            let node = Node::start(host, config).await?;
            node.serving().await?;

            let (draining, drain) = watch::channel(false);
            let drain_for = options.settings.drain;
            let peers = connections::Limits {
                handshake: options.settings.handshake,
                metadata_bytes: options.settings.metadata_bytes,
            };
            let settings = Arc::new(options.settings);
            let frontend = Frontend::new(node.clone(), settings, drain.clone());
            for name in &options.namespaces {
                let made = frontend
                    .ensure_namespace(name, options.retention, &options.search_attributes)
                    .await;
                made.map_err(|refusal| ServeError::Namespace {
                    name: name.clone(),
                    reason: refusal.message().to_owned(),
                })?;
            }
            let routes = services(frontend, drain.clone())?;
            let cut = CancellationToken::new();
            let serving = connections::serve(listener, routes, peers, drain, cut.clone());
            let serving = tokio::spawn(serving);
            tracing::info!(%address, data = %data.display(), shards, "serving");
            Ok(Server {
                address,
                data,
                node,
                folder,
                draining,
                drain: drain_for,
                cut,
                serving,
                temporary,
            })
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data is, in words.
    pub fn data(&self) -> String {
        match self.temporary {
            None => self.data.display().to_string(),
            Some(_) => format!("{} (removed at exit)", self.data.display()),
        }
    }

    /// Takes no new connection, answers what waits, lets calls in flight finish, and stops.
    pub fn stop(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            tracing::info!("stopping");
            self.draining.send_replace(true);
            let mut serving = self.serving;
            let mut ended = tokio::time::timeout(self.drain, &mut serving).await;
            if ended.is_err() {
                tracing::warn!(after = ?self.drain, "calls were still in flight");
                self.cut.cancel();
                ended = Ok(serving.await);
            }
            if let Ok(Err(error)) = ended {
                tracing::error!(%error, "the server ended");
            }
            self.node.stop().await;
            drop(self.node);
            self.folder.close().await;
            if let Some(Err(error)) = self.temporary.map(tempfile::TempDir::close) {
                tracing::warn!(%error, "the folder of the data could not be removed");
            }
        })
    }
}

/// The open data folder. Held to the end, so that the server is the one who closes it. Nobody
/// serves a peer any more by then; its last other users are openraft's own tasks, which nobody can
/// wait for, and which let go of it a moment after their group has ended.
struct Folder {
    store: Arc<dyn Store>,
    log: Arc<dyn Log>,
}

impl Folder {
    /// Closes the folder; whoever comes next finds it free.
    async fn close(self) {
        let Folder { store, log } = self;
        alone(&store).await;
        // Closing blocks for the disk.
        let closed = tokio::task::spawn_blocking(move || drop(store)).await;
        alone(&log).await;
        let closed = closed.and(tokio::task::spawn_blocking(move || drop(log)).await);
        if closed.is_err() {
            tracing::warn!("the closing of the data folder was interrupted");
        }
    }
}

/// Waits until nobody else uses `part`, for two seconds at most.
async fn alone<T: ?Sized>(part: &Arc<T>) {
    let end = Instant::now() + Duration::from_secs(2);
    while Arc::strong_count(part) > 1 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes sure that there can be a data folder at the place that the data is to have.
fn place(data: &Data) -> Result<(PathBuf, Option<tempfile::TempDir>), ServeError> {
    let path = match data {
        Data::Temporary => {
            remove_abandoned(&std::env::temp_dir());
            let folder = tempfile::Builder::new().prefix(PRIVATE).tempdir();
            let folder = folder.map_err(ServeError::Temporary)?;
            return Ok((folder.path().join("data"), Some(folder)));
        }
        Data::Folder(path) => path.clone(),
    };
    // Launchers of Temporal's server make an empty file first, to have a name that is theirs.
    match fs::metadata(&path) {
        Ok(found) if found.is_file() && found.len() == 0 => {
            fs::remove_file(&path).map_err(|error| ServeError::Replace(path.clone(), error))?;
        }
        Ok(found) if found.is_file() => return Err(ServeError::File(path)),
        _ => {}
    }
    Ok((path, None))
}

/// Removes the private folders of servers that were killed: nobody else will.
fn remove_abandoned(within: &Path) {
    let Ok(entries) = fs::read_dir(within) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(PRIVATE) {
            continue;
        }
        // Held while it is removed, so that of two servers only one does.
        let Some(_abandoned) = rocks::abandoned(&folder.join("data")) else { continue };
        match fs::remove_dir_all(&folder) {
            Ok(()) => tracing::info!(folder = %folder.display(), "removed what a server left"),
            Err(error) => tracing::warn!(%error, folder = %folder.display(), "cannot be removed"),
        }
    }
}

/// Opens the data folder. It blocks for the disk, so not on a thread that serves.
async fn open(path: &Path, shards: Option<u32>, of_new: u32) -> Result<Opened, ServeError> {
    let settings = rocks::Settings {
        format: Format { shards: shards.unwrap_or(of_new), node: NODE },
        exact: shards.is_some(),
        log: rocks::LogLimits::default(),
        tables: rocks::TablesLimits::default(),
        on_fatal: Arc::new(|error| {
            tracing::error!(%error, "the log cannot be written; the process ends");
            std::process::abort();
        }),
    };
    let folder = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Opened::open(&folder, &settings));
    let opened = opened.await.map_err(|_| ServeError::Interrupted)??;
    if opened.lost.is_empty() { Ok(opened) } else { Err(ServeError::Lost(path.to_owned())) }
}

/// Every service, as the sockets reach it.
fn services(frontend: Frontend, draining: watch::Receiver<bool>) -> Result<Routes, ServeError> {
    let reflection = Reflection::new(draining.clone())?;
    let health = HealthServer::new(HealthService::new(draining))
        .accept_compressed(CompressionEncoding::Gzip);
    let workflow = WorkflowServiceServer::new(frontend.clone())
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    let operator = OperatorServiceServer::new(frontend)
        .max_decoding_message_size(MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Gzip);
    let routes = Routes::new(workflow)
        .add_service(operator)
        .add_service(health)
        .add_service(reflection.stable())
        .add_service(reflection.alpha());
    Ok(routes.prepare())
}
