//! The command line: Temporal's `server start-dev` grammar, our own `server start`, and the few
//! operator commands that scripts call.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use holdfast_engine::namespace::{DEFAULT_NAMESPACE, DEFAULT_RETENTION, DEV_RETENTION};
use holdfast_proto::enums::IndexedValueType;
use serde_json::Value;

use crate::dynamic_config::{self, Outcome, Settings};
use crate::server::{Data, Options};
use crate::telemetry::{Format, Level};

/// A durable-execution server that speaks Temporal's API.
#[derive(Parser, Debug)]
#[command(name = "holdfast", version, disable_version_flag = true)]
pub struct Cli {
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a server
    #[command(subcommand)]
    Server(Server),
    /// Look at a running server
    #[command(subcommand)]
    Operator(Operator),
}

/// The ways to run a server.
#[derive(Subcommand, Debug)]
pub enum Server {
    /// Run a development server, as `temporal server start-dev` does
    StartDev(Box<StartDev>),
    /// Run a server with durable data
    Start(Start),
}

/// Commands that talk to a server.
#[derive(Subcommand, Debug)]
pub enum Operator {
    /// The server as a whole
    #[command(subcommand)]
    Cluster(Cluster),
}

/// Commands about the server as a whole.
#[derive(Subcommand, Debug)]
pub enum Cluster {
    /// Print SERVING and succeed if the server serves
    Health {
        /// Host and port of the server
        #[arg(long, default_value = "127.0.0.1:7233", value_name = "HOST:PORT")]
        address: String,
    },
}

/// Where a server listens, how it logs, and its limits.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_parser = ip)]
    ip: IpAddr,
    /// Port of the gRPC API; 0 takes a free one
    #[arg(short, long, default_value_t = 7233)]
    port: u16,
    /// How much to log
    #[arg(long, value_enum, ignore_case = true, default_value = "warn")]
    pub log_level: Level,
    /// How log lines look
    #[arg(long, value_enum, ignore_case = true, default_value = "text")]
    pub log_format: Format,
    /// Dynamic config, as JSON; may be given many times, the last of a key wins
    #[arg(long = "dynamic-config-value", value_name = "KEY=JSON",
          value_parser = dynamic_config::parse)]
    dynamic_config: Vec<(String, Value)>,
}

impl Common {
    /// Limits and intervals. What the user should know about them is added to `notes`.
    fn settings(&self, notes: &mut Vec<String>) -> Result<Settings, dynamic_config::ValueError> {
        let mut settings = Settings::default();
        for (key, value) in &self.dynamic_config {
            if settings.set(key, value)? == Outcome::Unknown {
                notes.push(format!("dynamic config key {key} is not known"));
            }
        }
        Ok(settings)
    }
}

/// `server start`.
#[derive(Args, Clone, Debug)]
pub struct Start {
    /// Listening, logging, limits.
    #[command(flatten)]
    pub common: Common,
    /// Folder of the data; made when it does not exist
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Number of shards; fixed when the data is created (default: 16, or what the data has)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=63))]
    shards: Option<u32>,
}

/// `server start-dev`, in Temporal's grammar.
#[derive(Args, Clone, Debug)]
pub struct StartDev {
    /// Listening, logging, limits.
    #[command(flatten)]
    pub common: Common,
    /// Folder of the data; without it the data is gone at exit
    #[arg(short = 'f', long, value_name = "FOLDER")]
    db_filename: Option<PathBuf>,
    /// Namespace to create besides `default`; may be given many times
    #[arg(short, long = "namespace", value_name = "NAME", value_parser = namespace)]
    namespaces: Vec<String>,
    /// Search attribute to create; may be given many times
    #[arg(long = "search-attribute", value_name = "NAME=TYPE", value_parser = search_attribute)]
    search_attributes: Vec<(String, IndexedValueType)>,
    /// Number of shards; fixed when the data is created (default: 4, or what the data has)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=63))]
    shards: Option<u32>,
    /// Do not serve the web UI
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set)]
    headless: bool,
    /// Flags without effect so far.
    #[command(flatten)]
    unused: Unused,
}

/// Flags of Temporal's grammar that are checked and have no effect yet.
#[derive(Args, Clone, Debug)]
struct Unused {
    /// Port of the HTTP API (no effect yet)
    #[arg(long)]
    http_port: Option<u16>,
    /// Port of the metrics (no effect yet)
    #[arg(long)]
    metrics_port: Option<u16>,
    /// Port of the web UI (no effect yet)
    #[arg(long)]
    ui_port: Option<u16>,
    /// Address of the web UI (no effect yet)
    #[arg(long, value_parser = ip)]
    ui_ip: Option<IpAddr>,
    /// Path prefix of the web UI (no effect yet)
    #[arg(long)]
    ui_public_path: Option<String>,
    /// Files of another web UI (no effect yet)
    #[arg(long)]
    ui_asset_path: Option<PathBuf>,
    /// Codec server of the web UI (no effect yet)
    #[arg(long)]
    ui_codec_endpoint: Option<String>,
    /// No news in the web UI (no effect yet)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ui_disable_news_fetch: Option<bool>,
    /// SQLite pragma; there is no SQLite here (no effect)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pragma)]
    sqlite_pragma: Vec<String>,
    /// Log the configuration (no effect yet)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    log_config: Option<bool>,
}

impl Unused {
    /// The flags that were given.
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("--http-port", self.http_port.is_some()),
            ("--metrics-port", self.metrics_port.is_some()),
            ("--ui-port", self.ui_port.is_some()),
            ("--ui-ip", self.ui_ip.is_some()),
            ("--ui-public-path", self.ui_public_path.is_some()),
            ("--ui-asset-path", self.ui_asset_path.is_some()),
            ("--ui-codec-endpoint", self.ui_codec_endpoint.is_some()),
            ("--ui-disable-news-fetch", self.ui_disable_news_fetch.is_some()),
            ("--sqlite-pragma", !self.sqlite_pragma.is_empty()),
            ("--log-config", self.log_config.is_some()),
        ];
        flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect()
    }
}

fn ip(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

fn namespace(text: &str) -> Result<String, String> {
    match text.len() {
        1..=1000 => Ok(text.to_owned()),
        _ => Err("a namespace has 1 to 1000 characters".to_owned()),
    }
}

fn pragma(text: &str) -> Result<String, String> {
    text.split_once('=').map(|_| text.to_owned()).ok_or_else(|| "expected KEY=VALUE".to_owned())
}

fn search_attribute(text: &str) -> Result<(String, IndexedValueType), String> {
    let (name, kind) = text.split_once('=').ok_or("expected NAME=TYPE")?;
    let kinds = [
        ("Text", IndexedValueType::Text),
        ("Keyword", IndexedValueType::Keyword),
        ("Int", IndexedValueType::Int),
        ("Double", IndexedValueType::Double),
        ("Bool", IndexedValueType::Bool),
        ("Datetime", IndexedValueType::Datetime),
        ("KeywordList", IndexedValueType::KeywordList),
    ];
    if name.is_empty() {
        return Err("expected NAME=TYPE".to_owned());
    }
    kinds
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(kind))
        .map(|(_, kind)| (name.to_owned(), *kind))
        .ok_or_else(|| format!("{kind:?} is none of {}", kinds.map(|(known, _)| known).join(", ")))
}

impl Start {
    /// What the server is to be, and what the user should know about the flags.
    pub fn options(&self) -> Result<(Options, Vec<String>), dynamic_config::ValueError> {
        let mut notes = Vec::new();
        let options = Options {
            ip: self.common.ip,
            port: self.common.port,
            data: Data::Folder(self.data_dir.clone()),
            shards: self.shards,
            shards_of_new: 16,
            settings: self.common.settings(&mut notes)?,
            retention: DEFAULT_RETENTION,
            namespaces: vec![DEFAULT_NAMESPACE.to_owned()],
            search_attributes: BTreeMap::new(),
        };
        Ok((options, notes))
    }
}

impl StartDev {
    /// What the server is to be, and what the user should know about the flags.
    pub fn options(&self) -> Result<(Options, Vec<String>), dynamic_config::ValueError> {
        let mut notes = Vec::new();
        let unused = self.unused.given();
        if !unused.is_empty() {
            notes.push(format!("flags without effect so far: {}", unused.join(", ")));
        }
        let settings = self.common.settings(&mut notes)?;
        let mut namespaces = vec![DEFAULT_NAMESPACE.to_owned()];
        for name in &self.namespaces {
            if !namespaces.contains(name) {
                namespaces.push(name.clone());
            }
        }
        let options = Options {
            ip: self.common.ip,
            port: self.common.port,
            data: self.db_filename.clone().map_or(Data::Temporary, Data::Folder),
            shards: self.shards,
            shards_of_new: 4,
            settings,
            retention: DEV_RETENTION,
            namespaces,
            search_attributes: self.search_attributes.iter().cloned().collect(),
        };
        Ok((options, notes))
    }
}

/// Whether this is the command line of Temporal's time-skipping test server: a port comes first.
pub fn is_test_server(first: Option<&str>) -> bool {
    first.is_some_and(|word| word.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn start_dev(flags: &[&str]) -> Result<StartDev, clap::Error> {
        let words = ["holdfast", "server", "start-dev"].iter().chain(flags);
        match Cli::try_parse_from(words)?.command {
            Command::Server(Server::StartDev(flags)) => Ok(*flags),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn both_spellings_mean_the_same() {
        for flags in [
            &["--ip", "localhost", "--port", "7", "--headless", "-n", "a"][..],
            &["--ip=127.0.0.1", "-p=7", "--headless=true", "--namespace=a", "-n", "default"],
        ] {
            let flags = start_dev(flags).expect("parses");
            assert!(flags.headless);
            let (options, notes) = flags.options().expect("valid");
            assert_eq!((options.ip.to_string().as_str(), options.port), ("127.0.0.1", 7));
            assert_eq!(options.namespaces, ["default", "a"]);
            assert!(notes.is_empty(), "{notes:?}");
        }
    }

    #[test]
    fn the_durable_form_takes_limits_too() {
        let flag = "--dynamic-config-value=frontend.handshakeTimeout=\"3s\"";
        let words = ["holdfast", "server", "start", "--data-dir=d", flag];
        let Command::Server(Server::Start(start)) = Cli::parse_from(words).command else {
            panic!("another command")
        };
        let (options, notes) = start.options().expect("valid");
        assert_eq!(options.settings.handshake, std::time::Duration::from_secs(3));
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn types_of_search_attributes_are_read_in_any_case() {
        let flags = ["--search-attribute", "A=keyword", "--search-attribute=B=KeywordList"];
        let (options, _) = start_dev(&flags).expect("parses").options().expect("valid");
        let kinds: Vec<_> = options.search_attributes.into_values().collect();
        assert_eq!(kinds, [IndexedValueType::Keyword, IndexedValueType::KeywordList]);
    }

    #[test]
    fn a_port_alone_is_the_test_server() {
        assert!(is_test_server(Some("7777")));
        assert!(!is_test_server(Some("server")) && !is_test_server(None));
    }
}
