//! What most tests begin with: a server, a client, and a host whose consumers are laid out.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result};
use pelton_tests::checker::LedgerEvent;
use pelton_tests::client::{Client, Outgoing, StreamSpec};
use pelton_tests::host::{Host, HostOptions};
use pelton_tests::load::ledger_message;
use pelton_tests::manifest::Manifest;
use pelton_tests::nats::NatsServer;
use pelton_tests::reader::{Reader, Stored};
use pelton_tests::wait;
use serde_json::Value;

/// How long something may take that should take a moment: long, because the machine may be busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long is listened when nothing may come.
pub(crate) const QUIET: Duration = Duration::from_millis(400);

/// A server with the streams IN (`in.>`) and OUT (`out.>`), and a host with a directory of its own.
pub(crate) struct Stage {
    pub(crate) nats: NatsServer,
    pub(crate) client: Client,
    pub(crate) host: Host,
    output: Reader,
}

impl Stage {
    /// Server and streams; the host is laid out without consumers and not started.
    pub(crate) async fn new() -> Result<Self> {
        Self::with(|options| options).await
    }

    /// The same with other options for the host.
    pub(crate) async fn with(change: impl FnOnce(HostOptions) -> HostOptions) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let client = nats.client().await?;
        // A short window, so that repetitions reach the host.
        let input = StreamSpec::new("IN", "in.>").duplicate_window(Duration::from_millis(100));
        client.create_stream(&input).await?;
        client.create_stream(&StreamSpec::new("OUT", "out.>")).await?;
        let host = Host::prepare(change(HostOptions::on(&nats.url())))?;
        let output = client.read("OUT");
        Ok(Self { nats, client, host, output })
    }

    /// Lays out one consumer of a guest on `in.>`, keyed by the second token, and starts the host.
    pub(crate) async fn running(guest: &str) -> Result<Self> {
        Self::running_with(guest, |manifest| manifest).await
    }

    /// The same with changes to the manifest.
    pub(crate) async fn running_with(guest: &str, change: impl FnOnce(Manifest) -> Manifest) -> Result<Self> {
        let mut stage = Self::new().await?;
        stage.consumer(guest, guest, change)?;
        stage.host.start().await?;
        Ok(stage)
    }

    /// Lays out a consumer of a guest on `in.>`; a running host picks it up.
    pub(crate) fn consumer(&self, name: &str, guest: &str, change: impl FnOnce(Manifest) -> Manifest) -> Result<()> {
        self.host.guest(guest)?;
        self.host.manifest(name, &change(manifest_of(guest)))
    }

    /// Publishes to `in.KEY`.
    pub(crate) async fn publish(&self, key: &str, payload: &str) -> Result<u64> {
        self.client.publish(&Outgoing::new(format!("in.{key}"), payload.to_owned())).await
    }

    /// Publishes message number `n` of a key, as `ledger` takes it, under an id of its own.
    pub(crate) async fn ledger(&self, key: &str, n: u64) -> Result<u64> {
        self.client.publish(&ledger_message(format!("in.{key}"), &format!("{key}-{n}"), n, 64)).await
    }

    /// The next events, as `ledger` writes them.
    pub(crate) async fn ledger_events(&mut self, count: usize) -> Result<Vec<LedgerEvent>> {
        self.events(count).await?.iter().map(Stored::json).collect()
    }

    /// A consumer's part of `/status`; null if there is none of this name.
    pub(crate) async fn status_of(&self, consumer: &str) -> Result<Value> {
        self.host.consumer_status(consumer).await
    }

    /// What keeps a consumer from working, as one text.
    pub(crate) async fn problems(&self, consumer: &str) -> Result<String> {
        Ok(self.status_of(consumer).await?["problems"].to_string())
    }

    /// Waits until a consumer's part of `/status` is as wanted.
    pub(crate) async fn wait_status(
        &self,
        what: &str,
        consumer: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let last = RefCell::new(Value::Null);
        let waiting = wait::until(what, SOON, || async {
            let status = self.status_of(consumer).await?;
            last.replace(status.clone());
            Ok(wanted(&status).then_some(status))
        });
        let outcome = waiting.await;
        outcome.with_context(|| format!("its status is {}; the host's log:\n{}", last.borrow(), self.host.log_tail()))
    }

    /// The next events.
    pub(crate) async fn events(&mut self, count: usize) -> Result<Vec<Stored>> {
        let events = self.output.take(count, SOON).await;
        events.with_context(|| format!("the host's log:\n{}", self.host.log_tail()))
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Stored> {
        self.events(1).await?.pop().context("one event was asked for")
    }

    /// What the stream OUT holds, from where it was read last.
    pub(crate) fn output(&mut self) -> &mut Reader {
        &mut self.output
    }

    /// Listens for a while and fails if something comes.
    pub(crate) async fn no_more_events(&mut self) {
        let more = self.output.some(QUIET).await;
        assert!(more.is_empty(), "nothing more was to come out, but: {more:?}");
    }
}

/// A consumer of a guest as most tests want it: keyed by the second token of `in.KEY`, may emit to `out.>`, retries quickly.
pub(crate) fn manifest_of(guest: &str) -> Manifest {
    let manifest = Manifest::new(&format!("{guest}.wasm"), "IN", "in.>").emits("out.>").quick_retries(3);
    // Most guests add the key to the subject; these two emit to it as it is.
    let out = if matches!(guest, "echo" | "shared-counter") { "out.all" } else { "out" };
    manifest.section("[config]", &format!("out = \"{out}\""))
}
