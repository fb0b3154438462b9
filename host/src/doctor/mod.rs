//! What endangers the guarantees and is not the host's to decide: the server, the streams, the disk, the limits. Facts come in, findings go out; each names
//! the thing and, if it is not well, the way out.

mod streams;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub use streams::Streams;

use crate::admin::StatusView;
use crate::config::Problem;
use crate::nats::ServerFacts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It may do harm, or can't be seen.
    Warn,
    /// It does harm.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub thing: String,
    /// What was found.
    pub text: String,
    /// The way out.
    pub help: Option<String>,
}

impl Finding {
    fn ok(thing: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, thing: thing.into(), text: text.into(), help: None }
    }

    fn warn(thing: impl Into<String>, text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { level: Level::Warn, thing: thing.into(), text: text.into(), help: Some(help.into()) }
    }

    fn fail(thing: impl Into<String>, text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::warn(thing, text, help) }
    }
}

/// The oldest server that can reset a consumer, which every position needs.
const SERVER_MIN: (u64, u64) = (2, 14);
/// A sync that takes longer than this bounds how often a host can commit, in milliseconds.
const SYNC_MS_MAX: u128 = 20;
/// Room is short below so many times what has to be free.
const ROOM_FACTOR: u64 = 4;
/// Open files of a host without consumers, and of each.
const FILES_BASE: u64 = 128;
const FILES_EACH: u64 = 4;

/// What is wrong with the configuration's files.
pub fn configuration<'a>(consumers: usize, problems: impl Iterator<Item = &'a Problem>) -> Vec<Finding> {
    let mut found: Vec<Finding> = problems
        .map(|problem| {
            let place = problem.place.map(|place| format!(":{place}")).unwrap_or_default();
            let thing = format!("{}{place}", problem.file.display());
            Finding::fail(thing, format!("[{}] {}", problem.code, problem.message), &problem.help)
        })
        .collect();
    if found.is_empty() {
        found.push(Finding::ok("configuration", format!("no mistakes in it and in {consumers} manifests")));
    }
    found
}

/// Whether a host runs, and how it is.
#[must_use]
pub fn host(status: Result<&StatusView, String>) -> Finding {
    match status {
        Ok(status) if status.ready.ok => Finding::ok("host", format!("pelton {} runs and is ready", status.version)),
        Ok(status) => Finding::fail(
            "host",
            format!("not ready: {}", status.ready.reasons.join("; ")),
            "`pelton status` has the details",
        ),
        Err(error) => Finding::warn("host", error, "start it with `pelton run`; what only it knows was not looked at"),
    }
}

/// Who can read the token.
#[must_use]
pub fn token_file(file: &Path, mode: u32) -> Finding {
    let thing = format!("token file {}", file.display());
    if mode & 0o077 == 0 {
        Finding::ok(thing, "only its owner can read it")
    } else {
        Finding::warn(
            &thing,
            format!("others can read it (mode {:o})", mode & 0o777),
            format!("chmod 600 {}", file.display()),
        )
    }
}

/// Files and connections that the host may have open; none: no limit.
#[must_use]
pub fn open_files(limit: Option<u64>, consumers: usize) -> Finding {
    let needed = FILES_BASE + FILES_EACH * consumers as u64;
    match limit {
        Some(limit) if limit < needed => Finding::fail(
            "open files",
            format!("{limit} are allowed here, and {consumers} consumers need about {needed}"),
            "raise it for the host: ulimit -n, or LimitNOFILE in its service",
        ),
        Some(limit) => Finding::ok("open files", format!("{limit} are allowed here, about {needed} are needed")),
        None => Finding::ok("open files", "no limit"),
    }
}

/// The data directory's disk.
#[derive(Debug)]
pub struct Disk<'a> {
    /// Where was measured.
    pub directory: &'a Path,
    /// Bytes that are free; none: the system does not say.
    pub free_bytes: Option<u64>,
    /// Bytes that have to be.
    pub free_bytes_min: u64,
    /// The time of a small write that is made durable.
    pub measured: Result<Duration, String>,
}

/// Room on the disk, and how fast it makes things durable.
#[must_use]
pub fn disk(disk: &Disk<'_>) -> Vec<Finding> {
    let place = disk.directory.display();
    let mib = |bytes: u64| bytes >> 20;
    let room = match disk.free_bytes {
        None => Finding::warn("disk", format!("the system does not say how much room {place} has"), "look with df"),
        Some(free) if free < disk.free_bytes_min => Finding::fail(
            "disk",
            format!(
                "{place} has {} MiB of room, {} have to be free: the host takes nothing in",
                mib(free),
                mib(disk.free_bytes_min)
            ),
            "free some, or move store.path",
        ),
        Some(free) if free < disk.free_bytes_min.saturating_mul(ROOM_FACTOR) => Finding::warn(
            "disk",
            format!(
                "{place} has {} MiB of room; below {} the host takes nothing in",
                mib(free),
                mib(disk.free_bytes_min)
            ),
            "free some before it comes to that",
        ),
        Some(free) => Finding::ok("disk", format!("{place} has {} MiB of room", mib(free))),
    };
    let sync = match &disk.measured {
        Err(error) => Finding::fail(
            "fsync",
            format!("nothing can be made durable in {place}: {error}"),
            "check store.path and its permissions",
        ),
        Ok(time) if time.as_millis() > SYNC_MS_MAX => Finding::warn(
            "fsync",
            format!("{} ms in {place}: a key waits for two of these before its message is settled", time.as_millis()),
            "put store.path on a local disk that is fast to sync",
        ),
        Ok(time) => {
            Finding::ok("fsync", format!("{}.{:03} ms in {place}", time.as_millis(), time.subsec_micros() % 1_000))
        }
    };
    vec![room, sync]
}

/// The server is embedded, and nobody runs it.
#[must_use]
pub fn no_embedded_server() -> Finding {
    Finding::warn(
        "nats",
        "the server is embedded and no host runs it, so server and streams were not looked at",
        "start the host, then look again",
    )
}

/// There is no server.
#[must_use]
pub fn unreachable(failure: &str) -> Finding {
    Finding::fail("nats", failure, "start the server, or correct [nats] in the configuration")
}

/// What the server is, and what it does not show.
#[must_use]
pub fn server(facts: &ServerFacts, embedded: bool) -> Vec<Finding> {
    let ServerFacts { address, version, jetstream, .. } = facts;
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    let known = numbers.next().zip(numbers.next());
    let mut found = Vec::new();
    found.push(match known {
        Some(known) if known < SERVER_MIN => Finding::fail(
            "nats",
            format!("{address} is nats-server {version}"),
            format!(
                "take {}.{} or newer: consumers are positioned by what it can do since",
                SERVER_MIN.0, SERVER_MIN.1
            ),
        ),
        Some(_) => Finding::ok("nats", format!("{address} is nats-server {version}")),
        None => Finding::warn(
            "nats",
            format!("{address} has version {version:?}, which is none that is known"),
            "take nats-server 2.14 or newer",
        ),
    });
    if !jetstream {
        found.push(Finding::fail("jetstream", "the server has none", "start it with -js, or with a jetstream block"));
    }
    let help = "set jetstream { sync_interval: always } where what was acknowledged must survive a power cut; a stream with 3 replicas needs it less";
    found.push(if embedded {
        Finding::warn("sync_interval", "the embedded server syncs every 2 minutes: a power cut may lose messages that it acknowledged", "use a server of your own where that matters")
    } else {
        Finding::warn("sync_interval", "can't be seen from here; by default JetStream syncs every 2 minutes, and a power cut may lose what it acknowledged", help)
    });
    found
}

/// The account's room in JetStream.
#[must_use]
pub fn account(account: Result<&Value, &str>) -> Finding {
    let account = match account {
        Ok(account) => account,
        Err(error) => return Finding::fail("jetstream account", error, "enable JetStream for this account"),
    };
    let number = |pointer: &str| account.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let (used, limit) = (number("/storage"), number("/limits/max_storage"));
    let (consumers, consumers_max) = (number("/consumers"), number("/limits/max_consumers"));
    if limit > 0 && used.saturating_mul(10) >= limit.saturating_mul(9) {
        let text = format!("{used} of {limit} bytes of storage are used: soon publishes are refused");
        return Finding::warn("jetstream account", text, "raise max_storage of the account, or limit its streams");
    }
    if consumers_max > 0 && consumers.saturating_mul(10) >= consumers_max.saturating_mul(9) {
        let text = format!("{consumers} of {consumers_max} consumers are in use");
        return Finding::warn("jetstream account", text, "raise max_consumers of the account");
    }
    Finding::ok("jetstream account", format!("{} streams, {consumers} consumers, {used} bytes", number("/streams")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: &str) -> ServerFacts {
        ServerFacts { address: "h:4222".into(), version: version.into(), jetstream: true, max_payload: 1 << 20 }
    }

    #[test]
    fn an_old_server_fails_and_what_cant_be_seen_is_said() {
        let levels = |version| server(&facts(version), false).iter().map(|finding| finding.level).collect::<Vec<_>>();
        assert_eq!(levels("2.10.4"), [Level::Fail, Level::Warn]);
        assert_eq!(levels("2.15.1-RC.1"), [Level::Ok, Level::Warn]);
        assert_eq!(levels("unknown"), [Level::Warn, Level::Warn]);
        let without = ServerFacts { jetstream: false, ..facts("2.15.1") };
        assert!(server(&without, true).iter().any(|finding| finding.level == Level::Fail && finding.help.is_some()));
    }

    #[test]
    fn a_disk_is_judged_by_its_room_and_its_syncs() {
        let look = |free, ms| {
            let measured = Ok(Duration::from_millis(ms));
            let found =
                disk(&Disk { directory: Path::new("data"), free_bytes: Some(free), free_bytes_min: 100, measured });
            found.iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(look(99, 1), [Level::Fail, Level::Ok]);
        assert_eq!(look(399, 21), [Level::Warn, Level::Warn]);
        assert_eq!(look(400, 20), [Level::Ok, Level::Ok]);
        let broken = Disk {
            directory: Path::new("data"),
            free_bytes: None,
            free_bytes_min: 1,
            measured: Err("read-only".into()),
        };
        assert_eq!(disk(&broken).iter().map(|finding| finding.level).collect::<Vec<_>>(), [Level::Warn, Level::Fail]);
    }

    #[test]
    fn limits_and_permissions_are_judged() {
        assert_eq!(open_files(Some(131), 1).level, Level::Fail);
        assert_eq!(open_files(Some(132), 1).level, Level::Ok);
        assert_eq!(open_files(None, 1).level, Level::Ok);
        assert_eq!(token_file(Path::new("t"), 0o100600).level, Level::Ok);
        assert_eq!(token_file(Path::new("t"), 0o100640).level, Level::Warn);
        let full = serde_json::json!({ "storage": 95, "limits": { "max_storage": 100, "max_consumers": -1 } });
        assert_eq!(account(Ok(&full)).level, Level::Warn);
        assert_eq!(account(Err("not enabled")).level, Level::Fail);
    }
}
