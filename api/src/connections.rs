//! The sockets in front of the services: who is let in, how long a peer may keep silent, what one
//! connection may hold, and how all of them end.
//!
//! Every task that is started here, for a connection or for a call, is waited for by [`serve`]:
//! when it returns, nobody works for a peer any more.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use crate::transport;

/// Calls that one connection may have open: each poll of a big worker is one.
const STREAMS: u32 = 10_000;

/// Calls that a peer may withdraw at once. A stall of the machine makes a whole generation of calls
/// run into their deadlines together, and their successors perhaps too: a client can do that no
/// more often than it has streams. Who attacks with resets does, and loses the connection.
const WITHDRAWN: u32 = 2 * STREAMS;

/// Withdrawn calls that are forgiven in each second: what a client with all its streams in use and
/// deadlines of ten seconds, the usual ones, can withdraw for as long as a stall lasts.
const FORGIVEN: u32 = STREAMS / 10;

/// The longest header block that is read at all, in bytes, as in gRPC for Go; a call with a longer
/// one is refused by HTTP's 431. What a call may have is configured: [`Limits::metadata_bytes`].
const HEADER_BYTES: u32 = 16 << 20;

/// When the server stops, a connection without calls on which nothing moves for so long is cut:
/// its peer is gone or stopped, and will not answer the goodbye. Seen after twice that at most.
const QUIET: Duration = Duration::from_millis(200);

/// How long no connection is accepted after the system had no room for one.
const NO_ROOM: Duration = Duration::from_millis(50);

/// What a peer may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long it may take to finish HTTP/2's greeting.
    pub(crate) handshake: Duration,
    /// How much metadata a call may have, in bytes, counted as HTTP/2 does.
    pub(crate) metadata_bytes: usize,
}

/// Serves until `drain` turns true and every connection has ended. A connection ends when its
/// calls are done; all of them at once when `cut` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Routes,
    limits: Limits,
    mut drain: watch::Receiver<bool>,
    cut: CancellationToken,
) {
    let tasks = Tasks { tracker: TaskTracker::new(), cut };
    let http = http(tasks.clone());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut drain) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (http, routes, drain) = (http.clone(), routes.clone(), drain.clone());
                tasks.run(connection(stream, http, routes, limits, drain));
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
    // New clients are refused from here on, and need not wait to learn it.
    drop(listener);
    tasks.tracker.close();
    tasks.tracker.wait().await;
}

/// How HTTP/2 is spoken.
fn http(tasks: Tasks) -> Builder<Tasks> {
    let mut http = Builder::new(tasks);
    http.timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(10))
        // Windows that one large message does not exhaust.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(WITHDRAWN as usize)
        .max_header_list_size(HEADER_BYTES);
    http
}

/// Resolves once the server stops.
async fn stopped(drain: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _gone = drain.wait_for(|draining| *draining).await;
}

/// Whether the peer has gone before it was let in; that is no trouble of ours.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Starts tasks that end when they are cut, and are waited for.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    fn run(&self, task: impl Future + Send + 'static) {
        let cut = self.cut.clone();
        self.tracker.spawn(async move {
            // Cut or done, nobody asks.
            let _done = cut.run_until_cancelled_owned(task).await.is_some();
        });
    }
}

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.run(task);
    }
}

/// One connection, from its greeting to its end.
async fn connection(
    stream: TcpStream,
    http: Builder<Tasks>,
    routes: Routes,
    limits: Limits,
    mut drain: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection cannot be made quick");
    }
    let traffic = Traffic::begin();
    let watched = Watched { stream, greeting: Greeting::default(), traffic: traffic.clone() };
    let calls = Calls { routes, metadata_bytes: limits.metadata_bytes, traffic: traffic.clone() };
    let mut served =
        pin!(http.serve_connection(TokioIo::new(watched), TowerToHyperService::new(calls)));
    tokio::select! {
        biased;
        ended = &mut served => return log(ended),
        () = traffic.silent(limits.handshake) => {
            return tracing::debug!("a peer did not finish its greeting and is sent away");
        }
        () = traffic.abused.notified() => {
            return tracing::warn!("a peer withdrew more calls than any worker does: hung up");
        }
        () = stopped(&mut drain) => {}
    }
    if !traffic.greeted() {
        return;
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        ended = &mut served => log(ended),
        () = traffic.quiet() => tracing::debug!("a peer does not answer the goodbye"),
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// What happens on a connection.
struct Traffic {
    /// The peer has finished its greeting.
    greeted: AtomicBool,
    /// Bytes that went either way.
    moved: AtomicU64,
    /// Calls whose answer is not wholly on its way.
    calls: AtomicUsize,
    withdrawn: Mutex<Withdrawn>,
    /// More was withdrawn than is borne.
    abused: Notify,
}

impl Traffic {
    fn begin() -> Arc<Traffic> {
        Arc::new(Traffic {
            greeted: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            withdrawn: Mutex::new(Withdrawn { level: 0.0, at: Instant::now() }),
            abused: Notify::new(),
        })
    }

    fn greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// Resolves after `allowed` if the peer's greeting is not there by then.
    async fn silent(&self, allowed: Duration) {
        tokio::time::sleep(allowed).await;
        if self.greeted() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once there is no call, and no byte has moved for a while.
    async fn quiet(&self) {
        let mut before = self.moved.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now == before && self.calls.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = now;
        }
    }
}

/// Calls that were withdrawn and are not forgiven yet.
struct Withdrawn {
    level: f64,
    at: Instant,
}

impl Withdrawn {
    /// Counts one more; true if that is one too many.
    fn count(&mut self, now: Instant) -> bool {
        let forgiven = now.duration_since(self.at).as_secs_f64() * f64::from(FORGIVEN);
        *self = Withdrawn { level: (self.level - forgiven).max(0.0) + 1.0, at: now };
        self.level > f64::from(WITHDRAWN)
    }
}

/// A call, held by its request's body and by its answer's.
struct Call {
    traffic: Arc<Traffic>,
    /// The answer is all head, or its head is away.
    answered: AtomicBool,
    /// The request ended in a reset.
    reset: AtomicBool,
}

impl Call {
    fn begin(traffic: &Arc<Traffic>) -> Arc<Call> {
        traffic.calls.fetch_add(1, Ordering::Relaxed);
        let (answered, reset) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Call { traffic: traffic.clone(), answered, reset })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.traffic.calls.fetch_sub(1, Ordering::Relaxed);
        if !*self.answered.get_mut() || *self.reset.get_mut() {
            let withdrawn = self.traffic.withdrawn.lock();
            let mut withdrawn = withdrawn.unwrap_or_else(PoisonError::into_inner);
            if withdrawn.count(Instant::now()) {
                self.traffic.abused.notify_one();
            }
        }
    }
}

/// The services, as one connection sees them: its calls are counted.
#[derive(Clone)]
struct Calls {
    routes: Routes,
    metadata_bytes: usize,
    traffic: Arc<Traffic>,
}

impl Service<http::Request<Incoming>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let call = Call::begin(&self.traffic);
        let asked = call.clone();
        let request = request.map(|body| {
            Body::new(body.map_err(move |error| {
                asked.reset.store(true, Ordering::Relaxed);
                error
            }))
        });
        let answer = transport::answer(&mut self.routes, request, self.metadata_bytes);
        Box::pin(async move {
            let response = answer.await;
            let all_head = response.body().is_end_stream();
            call.answered.store(all_head, Ordering::Relaxed);
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    call.answered.store(true, Ordering::Relaxed);
                    frame
                }))
            }))
        })
    }
}

/// A socket whose traffic is seen.
struct Watched {
    stream: TcpStream,
    greeting: Greeting,
    traffic: Arc<Traffic>,
}

impl Watched {
    fn moved(&self, bytes: usize) {
        self.traffic.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut me.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        me.moved(new.len());
        if !me.traffic.greeted() && me.greeting.ends_within(new) {
            me.traffic.greeted.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            me.moved(count);
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.stream).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(count)) = written {
            me.moved(count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// How much of a peer's greeting is there. It is a preface of 24 bytes and a frame of settings,
/// whose head of 9 bytes begins with the length of the rest. What the bytes say is looked at by
/// who reads them.
#[derive(Default)]
struct Greeting {
    seen: usize,
    rest: usize,
}

impl Greeting {
    const PREFACE: usize = 24;
    const HEAD: usize = 9;

    /// Takes what came next; true once all of it is there.
    fn ends_within(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if (Self::PREFACE..Self::PREFACE + 3).contains(&self.seen) {
                self.rest = self.rest << 8 | usize::from(*byte);
            }
            self.seen += 1;
            if self.seen == Self::PREFACE + Self::HEAD + self.rest {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_withdrawn_by_workers_and_by_attackers() {
        let begin = Instant::now();
        let mut stalled = Withdrawn { level: 0.0, at: begin };
        // Every stream at once, and every ten seconds again.
        for round in 0..100 {
            let now = begin + round * Duration::from_secs(10);
            assert!((0..STREAMS).all(|_| !stalled.count(now)), "round {round}");
        }
        let mut attacked = Withdrawn { level: 0.0, at: begin };
        let step = Duration::from_secs(1) / 10_000;
        let borne = (0..200_000).take_while(|n| !attacked.count(begin + *n * step)).count();
        assert!((20_000..25_000).contains(&borne), "{borne}");
    }

    #[test]
    fn a_greeting_ends_with_its_settings() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);
        for step in 1..=bytes.len() {
            let mut greeting = Greeting::default();
            let mut ended = bytes.chunks(step).map(|part| greeting.ends_within(part));
            let parts = bytes.len().div_ceil(step);
            assert_eq!(ended.position(|ended| ended), Some(parts - 1), "in parts of {step}");
        }
        let mut greeting = Greeting::default();
        assert!(!greeting.ends_within(&bytes[..bytes.len() - 1]));
    }
}
