//! A server as a child process: started, waited for, stopped or killed.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Fallible;
use crate::client::Client;

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Its port.
    pub port: u16,
    /// Where its data stays; a private folder that goes with it when there is none.
    pub data: Option<PathBuf>,
    /// Where its output goes, added to what is there.
    pub log: PathBuf,
    /// Variables for it.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// A running server. It is killed when this is dropped.
pub struct Server {
    child: Child,
    spawned: Instant,
    log: PathBuf,
}

impl Launch {
    /// The usual: this program, a free port, output in `folder`.
    pub fn new(binary: &Path, folder: &Path) -> Fallible<Self> {
        Ok(Self {
            binary: binary.to_owned(),
            port: free_port()?,
            data: None,
            log: folder.join("server.log"),
            environment: Vec::new(),
        })
    }

    /// Starts the program, and does not wait.
    pub fn spawn(&self) -> Fallible<Server> {
        let output = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.args(["server", "start-dev", "--headless", "--port", &self.port.to_string()]);
        if let Some(data) = &self.data {
            command.arg("--db-filename").arg(data);
        }
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(std::process::Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let spawned = Instant::now();
        let child = command.spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.binary.display()))?;
        Ok(Server { child, spawned, log: self.log.clone() })
    }

    /// Starts the program and waits until it serves.
    pub async fn start(&self, patience: Duration) -> Fallible<Server> {
        let mut server = self.spawn()?;
        server.wait(self.port, patience).await?;
        Ok(server)
    }
}

impl Server {
    /// Waits until the server and all its shards answer. Returns how long that took since it was
    /// spawned.
    pub async fn wait(&mut self, port: u16, patience: Duration) -> Fallible<Duration> {
        // A connection that failed once waits before it tries again, so each try is a new one.
        loop {
            let client = Client::new(port, "probe")?;
            let refusal = match client.serves().await {
                Ok(()) => return Ok(self.spawned.elapsed()),
                Err(refusal) => refusal,
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server ended: {status}\n{}", self.last_words()).into());
            }
            if self.spawned.elapsed() > patience {
                return Err(format!(
                    "the server does not serve after {patience:?}: {refusal}\n{}",
                    self.last_words()
                )
                .into());
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub fn ended(&mut self) -> Fallible<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it as SIGKILL does: at once, without a word.
    pub fn kill(mut self) -> Fallible<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, as Ctrl-C and service managers do, and waits for that.
    pub async fn stop(mut self) -> Fallible<ExitStatus> {
        let asked =
            Command::new("sh").args(["-c", "kill -TERM $0", &self.pid().to_string()]).status()?;
        if !asked.success() {
            return Err("could not send SIGTERM".into());
        }
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if since.elapsed() > Duration::from_secs(30) {
                return Err("the server did not stop within 30 s of SIGTERM".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of its output.
    pub fn last_words(&self) -> String {
        let output = std::fs::read(&self.log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a process that is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> Fallible<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The server's program: what HOLDFAST_BIN says, else the one beside this program.
pub fn binary() -> Fallible<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the one variable that make hands to programs")]
    let named = std::env::var_os("HOLDFAST_BIN").map(PathBuf::from);
    let path = match named {
        Some(path) => path,
        None => target()?.join("release/holdfast"),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("no server at {}: run make build, or set HOLDFAST_BIN", path.display()).into())
}

/// Cargo's target folder, in which this program lies.
pub fn target() -> Fallible<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = |folder: &&Path| folder.ends_with("release") || folder.ends_with("debug");
    let folder = program.ancestors().find(profile).and_then(Path::parent);
    Ok(folder.ok_or("this program does not lie in cargo's target folder")?.to_owned())
}
