//! A TCP proxy whose connections can go silent, or break in the middle of a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Fault {
    /// Everything is taken and nothing handed on.
    silent: AtomicBool,
    /// Bytes from the server until the connection is reset, once; negative: none.
    until_reset: AtomicI64,
}

/// Stands before a server on this machine.
pub(super) struct Proxy {
    pub(super) port: u16,
    fault: Arc<Fault>,
}

impl Proxy {
    pub(super) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::new(Fault::default());
        fault.until_reset.store(-1, Ordering::Relaxed);
        let shared = Arc::clone(&fault);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                tokio::spawn(join(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, fault }
    }

    /// Swallows whatever either side sends, on all connections.
    pub(super) fn silence(&self, silent: bool) {
        self.fault.silent.store(silent, Ordering::Relaxed);
    }

    /// Resets a connection after so many more bytes from the server.
    pub(super) fn reset_after(&self, bytes: i64) {
        self.fault.until_reset.store(bytes, Ordering::Relaxed);
    }
}

async fn join(client: TcpStream, server: TcpStream, fault: Arc<Fault>) {
    // Closing either end then is a reset, not a farewell.
    client.set_zero_linger().unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first takes the other with it.
    tokio::select! {
        () = copy(from_client, to_server, &fault, false) => {}
        () = copy(from_server, to_client, &fault, true) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: &Fault, counted: bool) {
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if fault.silent.load(Ordering::Relaxed) {
            continue;
        }
        let left = fault.until_reset.load(Ordering::Relaxed);
        let mut piece = &buffer[..count];
        let is_last = counted && left >= 0 && left < i64::try_from(count).unwrap();
        if is_last {
            fault.until_reset.store(-1, Ordering::Relaxed);
            piece = &piece[..usize::try_from(left).unwrap()];
        } else if counted && left >= 0 {
            fault.until_reset.fetch_sub(i64::try_from(count).unwrap(), Ordering::Relaxed);
        }
        if to.write_all(piece).await.is_err() || is_last {
            return;
        }
    }
}
