//! A TCP proxy between the host and its server that can lose, hold and cut what passes: the network's faults without a network.
//!
//! It keeps count of frames in both directions, so that a fault can begin and end at any time without tearing one that it lets through.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::frame::{Kind, Origin, next_frame};

/// Read at one time, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// What the proxy does to the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing.
    Pass,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// Connections stay, and nothing passes until the mode changes; then everything does.
    Hold,
    /// The host's acks never arrive.
    DropAcks,
    /// The server's PubAcks never arrive.
    DropPubAcks,
    /// The events that the host publishes never arrive. No connection can lose some of what it carries and go on: this must end with the
    /// end of the host.
    DropEvents,
    /// The server's PubAcks arrive so much later.
    DelayPubAcks(Duration),
    /// After so many more bytes from the server the connection that carries the last of them is reset, in the middle of a frame.
    ResetAfter(u64),
}

#[derive(Clone, Copy, Debug)]
struct Control {
    mode: Mode,
    /// Connections up to this number are dead: open, and nothing will ever pass.
    dead_up_to: u64,
}

/// What is shared by all connections.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    affected: AtomicU64,
    from_server: AtomicU64,
}

/// A running proxy. Dropped, it closes everything.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    control: watch::Sender<Control>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port for connections to the server at `port`.
    pub(super) async fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port for the proxy")?;
        let port = listener.local_addr()?.port();
        let (control, controlled) = watch::channel(Control { mode: Mode::Pass, dead_up_to: 0 });
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(listen(listener, server, controlled, counts.clone()));
        Ok(Self { port, control, counts, task })
    }

    /// Where the host connects.
    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Does this from now on.
    pub(super) fn set(&self, mode: Mode) {
        self.counts.from_server.store(0, Ordering::Relaxed);
        self.control.send_modify(|control| control.mode = mode);
    }

    /// Whatever is open now stays open and falls silent for ever; new connections pass. Gives how many were open.
    pub(super) fn silence(&self) -> u64 {
        let made = self.counts.connections.load(Ordering::Relaxed);
        let open = self.counts.open.load(Ordering::Relaxed);
        self.control.send_modify(|control| control.dead_up_to = made);
        open
    }

    /// How many connections there ever were.
    pub(super) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Frames that were dropped or delayed, and connections that were cut or reset, so far.
    pub(super) fn affected(&self) -> u64 {
        self.counts.affected.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, server: u16, control: watch::Receiver<Control>, counts: Arc<Counts>) {
    // Owned here, so that the end of the proxy ends them.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (control, counts) = (control.clone(), counts.clone());
        // However a connection ends, it is closed then, and that is all that either side learns in the field.
        connections.spawn(async move { drop(connection(client, server, number, control, counts).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    client: TcpStream,
    server: u16,
    number: u64,
    mut control: watch::Receiver<Control>,
    counts: Arc<Counts>,
) -> Result<()> {
    if control.borrow_and_update().mode == Mode::Cut {
        return Ok(());
    }
    control.wait_for(|control| control.mode != Mode::Hold).await?;
    let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let _open = Open::count(&counts);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    let pump = |from, reader, writer| Pump {
        from,
        number,
        reader,
        writer,
        control: control.clone(),
        counts: counts.clone(),
        received: BytesMut::new(),
        late: VecDeque::new(),
    };
    let mut cut = control.clone();
    tokio::select! {
        ended = pump(Origin::Client, from_client, to_server).run() => ended,
        ended = pump(Origin::Server, from_server, to_client).run() => ended,
        _ = cut.wait_for(|control| control.mode == Mode::Cut) => {
            counts.affected.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// A connection that is open, as long as this is kept.
struct Open(Arc<Counts>);

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One direction of a connection.
struct Pump {
    from: Origin,
    number: u64,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    control: watch::Receiver<Control>,
    counts: Arc<Counts>,
    received: BytesMut,
    /// Frames that are held back, and until when.
    late: VecDeque<(Instant, Bytes)>,
}

impl Pump {
    async fn run(mut self) -> Result<()> {
        self.received.reserve(READ_BYTES);
        loop {
            let due = self.late.front().map(|(due, _)| *due);
            tokio::select! {
                read = self.reader.read_buf(&mut self.received) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.pass_frames().await?;
                }
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    if let Some((_, bytes)) = self.late.pop_front() {
                        self.write(&bytes).await?;
                    }
                }
            }
        }
    }

    async fn pass_frames(&mut self) -> Result<()> {
        while let Some(frame) = next_frame(&mut self.received, self.from) {
            let number = self.number;
            let control = *self.control.wait_for(|now| now.mode != Mode::Hold && now.dead_up_to < number).await?;
            match (control.mode, frame.kind) {
                (Mode::DropAcks, Kind::Ack) | (Mode::DropPubAcks, Kind::PubAck) | (Mode::DropEvents, Kind::Event) => {
                    self.affect();
                }
                (Mode::DelayPubAcks(delay), Kind::PubAck) => {
                    self.affect();
                    self.late.push_back((Instant::now() + delay, frame.bytes));
                }
                (Mode::ResetAfter(limit), _) if self.from == Origin::Server => {
                    self.write_up_to(limit, &frame.bytes).await?
                }
                _ => self.write(&frame.bytes).await?,
            }
        }
        Ok(())
    }

    async fn write_up_to(&mut self, limit: u64, bytes: &Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        let before = self.counts.from_server.fetch_add(length, Ordering::Relaxed);
        // One connection only: the one that crosses the limit.
        if before <= limit && limit < before + length {
            let torn = bytes.get(..usize::try_from(limit - before)?).unwrap_or_default();
            self.writer.write_all(torn).await?;
            self.affect();
            // Closed with unsent data thrown away, a connection is reset.
            self.writer.as_ref().set_zero_linger()?;
            bail!("reset, as asked");
        }
        self.write(bytes).await
    }

    async fn write(&mut self, bytes: &Bytes) -> Result<()> {
        Ok(self.writer.write_all(bytes).await?)
    }

    fn affect(&self) {
        self.counts.affected.fetch_add(1, Ordering::Relaxed);
    }
}
