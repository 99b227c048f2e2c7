//! The binary: parses the command line, runs the server until it is told to stop.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use holdfast_api::cli::{Cli, Cluster, Command, Operator, Server as ServerCommand, is_test_server};
use holdfast_api::server::{Options, Server};
use holdfast_api::{grpc, telemetry};
use tokio::signal::unix::{SignalKind, signal};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    if is_test_server(first.as_deref()) {
        complain("the time-skipping test server is not built; use `holdfast server start-dev`");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Fallible<()> {
    match cli.command {
        Command::Server(ServerCommand::StartDev(flags)) => {
            telemetry::start(flags.common.log_level, flags.common.log_format);
            let (options, notes) = flags.options()?;
            serve(options, &notes).await
        }
        Command::Server(ServerCommand::Start(flags)) => {
            telemetry::start(flags.common.log_level, flags.common.log_format);
            let (options, notes) = flags.options()?;
            serve(options, &notes).await
        }
        Command::Operator(Operator::Cluster(Cluster::Health { address })) => {
            grpc::health::ask(&address).await?;
            say("SERVING")
        }
    }
}

async fn serve(options: Options, notes: &[String]) -> Fallible<()> {
    // Before anything is started, so that no signal finds the process without a handler.
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(options).await?;
    say(&format!(
        "Holdfast {} serves Temporal's API on {}\ndata: {}",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        server.data()
    ))?;
    for note in notes {
        say(note)?;
    }
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}

fn say(line: &str) -> Fallible<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn complain(line: &str) {
    // When even this can't be written there is nobody left to tell.
    let _unheard = writeln!(std::io::stderr(), "holdfast: {line}");
}

/// An error and what it came from, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
