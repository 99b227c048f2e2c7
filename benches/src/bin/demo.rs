//! `make demo`: a throw-away server, one workflow with one activity played by hand, its history.

use std::process::ExitCode;
use std::time::Duration;

use holdfast_benches::client::{Client, Start, text, text_of};
use holdfast_benches::server::{Launch, binary};
use holdfast_benches::{Fallible, history, run, say, script};
use holdfast_proto::history::HistoryEvent;
use tokio::time::Instant;

const QUEUE: &str = "demo";
const ID: &str = "hello";

fn main() -> ExitCode {
    run(demo())
}

async fn demo() -> Fallible<ExitCode> {
    let folder = tempfile::tempdir()?;
    let launch = Launch::new(&binary()?, folder.path())?;
    let begun = Instant::now();
    let server = launch.start(Duration::from_secs(20)).await?;
    let started = begun.elapsed();
    say(format!("server: pid {}, 127.0.0.1:{}, throw-away data", server.pid(), launch.port));

    let begun = Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(20), workflow(launch.port)).await;
    let events = match outcome.map_err(|_| "the workflow took more than 20 s".into()) {
        Ok(Ok(events)) => events,
        Ok(Err(error)) | Err(error) => {
            return Err(format!("{error}\n{}", server.last_words()).into());
        }
    };
    let worked = begun.elapsed();
    say(format!("history of workflow {ID}:"));
    history::lines(&events).iter().for_each(say);
    let faults = history::faults(&events);
    faults.iter().for_each(|fault| say(format!("wrong: {fault}")));

    let begun = Instant::now();
    let status = server.stop().await?;
    say(format!(
        "start of the server {started:.0?}, workflow {worked:.1?}, stop {:.0?}",
        begun.elapsed()
    ));
    if !status.success() {
        return Err(format!("the server ended with {status}").into());
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the workflow, plays its worker, and returns its history.
async fn workflow(port: u16) -> Fallible<Vec<HistoryEvent>> {
    let client = Client::new(port, "demo")?;
    client
        .start(Start {
            id: ID.to_owned(),
            kind: "Hello".to_owned(),
            queue: QUEUE.to_owned(),
            input: text("Alice"),
            request_id: "demo".to_owned(),
            task_timeout: None,
        })
        .await?;
    answer_workflow_task(&client).await?;
    let task = client.poll_activity(QUEUE).await?.ok_or("no activity task")?;
    let greeting = format!("Hello, {}!", text_of(task.input.as_ref()));
    client.answer_activity(task.task_token, text(&greeting)).await?;
    answer_workflow_task(&client).await?;
    Ok(client.history(ID).await?)
}

async fn answer_workflow_task(client: &Client) -> Fallible<()> {
    let task = client.poll_workflow(QUEUE).await?.ok_or("no workflow task")?;
    let events = task.history.unwrap_or_default().events;
    let command = script::next(&events, QUEUE, || text("Alice"));
    Ok(client.answer_workflow(task.task_token, vec![command], &client.identity).await?)
}
