//! Row 16: messages that no client library would send and some can't read, written to the server byte by byte.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::seen::{consumer, dead_letters};
use super::trial::{SOON, Trial, run_for};
use crate::client::StreamSpec;
use crate::manifest::Manifest;
use crate::rig::Rig;
use crate::wait;

/// What the server takes, headers and payload together, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How often each message is sent.
const REPEATS: usize = 2;

/// Two consumers of one stream: one finds its key in a header, one in the subject.
const CONSUMERS: [(&str, &str); 2] = [("by-header", "header = \"Key\""), ("by-subject", "subject_token = 2")];

/// A message as bytes.
struct Case {
    what: &'static str,
    subject: Vec<u8>,
    headers: Option<Vec<u8>>,
    payload: Vec<u8>,
    /// Whether each of the consumers must give it up; else it applies it.
    given_up: [bool; 2],
}

fn case(what: &'static str, headers: Option<&[&[u8]]>, given_up: [bool; 2]) -> Case {
    let headers = headers.map(|lines| {
        let lines = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat());
        b"NATS/1.0\r\n".iter().copied().chain(lines).chain(*b"\r\n").collect()
    });
    Case { what, subject: b"poison.a".to_vec(), headers, payload: b"{\"n\":1}".to_vec(), given_up }
}

fn cases() -> Vec<Case> {
    // JetStream takes no more than 64 KiB of them, and the names are part of that.
    let pad = [b"Pad: ", "x".repeat((64 << 10) - 64).as_bytes()].concat();
    let huge = [b"Key: ", "k".repeat(600).as_bytes()].concat();
    let mut largest = case("maximal payload", Some(&[b"Key: a"]), [false, false]);
    let room = MESSAGE_BYTES_MAX - largest.headers.as_ref().map_or(0, Vec::len) - "{\"n\":1,\"pad\":\"\"}".len();
    largest.payload = format!("{{\"n\":1,\"pad\":\"{}\"}}", "x".repeat(room)).into_bytes();
    let mut subject = case("non-UTF-8 subject", Some(&[b"Key: a"]), [true, true]);
    subject.subject = b"poison.\xff\xfe".to_vec();
    vec![
        case("lone CR in a header", Some(&[b"Key: a\rb"]), [true, true]),
        case("non-UTF-8 header", Some(&[b"Key: a", b"Other: \xff\xfe"]), [true, true]),
        case("header without a colon", Some(&[b"Key: a", b"nothing"]), [true, true]),
        case("64 KiB of headers", Some(&[b"Key: a", &pad]), [false, false]),
        largest,
        case("missing key", None, [true, false]),
        case("empty key", Some(&[b"Key: "]), [true, false]),
        case("huge key", Some(&[&huge]), [true, false]),
        case("non-UTF-8 key", Some(&[b"Key: \xff\xfe"]), [true, true]),
        subject,
        case("sound", Some(&[b"Key: a"]), [false, false]),
    ]
}

/// Row 16.
pub(super) async fn poisoned(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    rig.client.create_stream(&StreamSpec::new("POISON", "poison.>")).await?;
    rig.client.create_stream(&StreamSpec::new("POISON-OUT", "poison-out.>")).await?;
    for (name, key) in CONSUMERS {
        let manifest = Manifest::new("ledger.wasm", "POISON", "poison.>").key(key).emits("poison-out.>");
        rig.host.manifest(name, &manifest.section("[config]", "out = \"poison-out\""))?;
    }
    rig.host.start().await?;
    let mut expected = [Vec::new(), Vec::new()];
    let mut wire = Wire::connect(rig.nats.port()).await?;
    for case in cases() {
        for _ in 0..REPEATS {
            run_for(&rig, 50).await;
            let sequence = wire.publish(&rig, &case).await.with_context(|| case.what)?;
            for (given_up, sequences) in case.given_up.iter().zip(&mut expected) {
                sequences.extend(given_up.then_some(sequence));
            }
        }
        for ((name, _), sequences) in CONSUMERS.iter().zip(&expected) {
            are_given_up(&rig, name, sequences).await.with_context(|| format!("{}, consumer {name}", case.what))?;
        }
        trial.healed(&mut rig).await.with_context(|| format!("the others, after: {}", case.what))?;
        trial.round();
    }
    rig.host.kill()?;
    rig.host.start().await?;
    for ((name, _), sequences) in CONSUMERS.iter().zip(&expected) {
        are_given_up(&rig, name, sequences).await.with_context(|| format!("consumer {name} after a restart"))?;
    }
    trial.healed(&mut rig).await?;
    trial.note("one dead letter for each that can't be handled, none for the others");
    Ok(())
}

/// Waits until a consumer is through with the stream; it must have exactly these dead letters.
async fn are_given_up(rig: &Rig, name: &str, sequences: &[u64]) -> Result<()> {
    let (_, last) = rig.client.stream_size("POISON").await?;
    let through = wait::until("the consumer is through with the stream", SOON, || async {
        let seen = consumer(&rig.host, name).await?;
        Ok((seen.floor == last && seen.held == 0).then_some(()))
    });
    through.await.with_context(|| format!("the host's log:\n{}", rig.host.log_tail()))?;
    let letters = dead_letters(&rig.host, name).await?;
    let found: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
    ensure!(found == sequences, "dead letters of the messages {found:?}, and not of {sequences:?}");
    Ok(())
}

/// A connection without a client library.
struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    async fn connect(port: u16) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
        stream.read_line(&mut String::new()).await?;
        stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n").await?;
        Ok(Self { stream })
    }

    /// Publishes and gives the sequence under which the stream has it.
    async fn publish(&mut self, rig: &Rig, case: &Case) -> Result<u64> {
        let (_, before) = rig.client.stream_size("POISON").await?;
        let headers = case.headers.as_deref().unwrap_or_default();
        let whole = headers.len() + case.payload.len();
        let verb: &[u8] = if case.headers.is_some() { b"HPUB " } else { b"PUB " };
        let sizes =
            if case.headers.is_some() { format!(" {} {whole}\r\n", headers.len()) } else { format!(" {whole}\r\n") };
        let parts = [verb, &case.subject, sizes.as_bytes(), headers, &case.payload, b"\r\nPING\r\n"];
        self.stream.write_all(&parts.concat()).await?;
        self.pong().await?;
        let stored = wait::until("the stream has the message", Duration::from_secs(5), || async {
            let (_, last) = rig.client.stream_size("POISON").await?;
            Ok((last > before).then_some(last))
        });
        stored.await
    }

    async fn pong(&mut self) -> Result<()> {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(5), self.stream.read_line(&mut line)).await;
            ensure!(read.context("the server does not answer")?? > 0, "the server closed the connection");
            ensure!(!line.starts_with("-ERR"), "the server refuses: {line}");
            if line.starts_with("PING") {
                self.stream.write_all(b"PONG\r\n").await?;
            }
            if line.starts_with("PONG") {
                return Ok(());
            }
        }
    }
}
