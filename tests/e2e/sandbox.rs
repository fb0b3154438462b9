//! Ten consumers of one stream, one of them hostile: it attacks in every way that its messages name while the nine others handle the same messages. The
//! host lives, says of each message what happened to it, and the results of the nine are what a calculation of their own says.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use pelton_tests::checker::{Checker, Published};
use pelton_tests::client::Outgoing;
use pelton_tests::host::HostOptions;
use pelton_tests::load::ledger_message;
use pelton_tests::manifest::Manifest;
use serde_json::Value;

use crate::stage::{SOON, Stage};

/// The sound consumers beside the hostile one.
const SOUND: usize = 9;

/// Attempts that the hostile consumer has for a message, and what becomes of one whose attempts are used up.
const HOSTILE_RETRY: &str =
    "on_exhausted = \"dead-letter\"\nattempts_max = 2\nfirst_delay_ms = 20\nlongest_delay_ms = 100";

/// What a host may have grown by when all is over, in bytes: what its caches keep, and far less than what the attacks asked for.
const GROWN_BYTES_MAX: u64 = 128 << 20;

/// What a hostile message must come to: the kind of its last attempt's failure and a part of the reason. None: it is applied.
type Case = (&'static str, Option<(&'static str, &'static str)>);

const CASES: [Case; 34] = [
    ("loop", Some(("timeout", "3000 ms"))),
    ("memory-copy", Some(("timeout", "3000 ms"))),
    ("host-calls", Some(("timeout", "3000 ms"))),
    ("recursion", Some(("trap", "stack"))),
    ("grow", Some(("limit", "limits.memory_bytes = 33554432"))),
    ("allocate", Some(("limit", "limits.memory_bytes = 33554432"))),
    ("unreachable", Some(("trap", "unreachable"))),
    ("exit", Some(("trap", "exited with status 0"))),
    ("panic", Some(("trap", "asked to panic"))),
    ("list-too-long", Some(("limit", "in one call"))),
    ("list-outside", Some(("trap", ""))),
    ("many-headers", Some(("limit", ""))),
    ("invalid-utf8", Some(("trap", "utf-8"))),
    ("million-puts", Some(("limit", "limits.writes_max = 1000"))),
    ("million-marks", Some(("limit", "limits.writes_max = 1000"))),
    ("million-emits", Some(("limit", "limits.events_max = 100"))),
    ("million-gets", Some(("limit", "limits.reads_max = 10000"))),
    ("scan", Some(("limit", "limits.reads_max = 10000"))),
    ("big-value", Some(("limit", "limits.state_value_bytes_max = 1048576"))),
    ("big-key", Some(("limit", "limits.state_key_bytes_max = 512"))),
    ("big-event", Some(("limit", "limits.event_bytes_max = 983040"))),
    ("crlf-header", Some(("reject", "control character"))),
    ("emit-js-api", Some(("reject", "$JS.API.STREAM.DELETE.IN"))),
    ("emit-inbox", Some(("reject", "_INBOX.someone.else"))),
    ("emit-wildcard", Some(("reject", "not a concrete subject"))),
    ("emit-full-wildcard", Some(("reject", "not a concrete subject"))),
    ("emit-not-granted", Some(("reject", "out.sound-1.forged"))),
    ("sleep", Some(("trap", "can't sleep"))),
    ("open-file", Some(("reject", ""))),
    ("create-file", Some(("reject", ""))),
    ("crafted-keys", None),
    ("stdout-flood", None),
    ("log-flood", None),
    ("fill", None),
];

/// A stage with nine `ledger` consumers and one that is not; all ten read all messages.
pub(crate) struct Crowd {
    pub(crate) stage: Stage,
    /// What each sound consumer must have made of the messages, by its name.
    checkers: BTreeMap<String, Checker>,
    /// What was published to each key.
    published: BTreeMap<String, Vec<&'static str>>,
    pid: Option<u32>,
}

impl Crowd {
    /// The hostile consumer is named so, has the component of `guest` and the manifest that `change` makes of an ordinary one.
    pub(crate) async fn with(guest: &str, extra: &str, change: impl FnOnce(Manifest) -> Manifest) -> Result<Self> {
        let mut stage = Stage::with(|options: HostOptions| options.extra(extra)).await?;
        stage.host.guest("ledger")?;
        let mut checkers = BTreeMap::new();
        for n in 1..=SOUND {
            let name = format!("sound-{n}");
            stage.host.manifest(&name, &manifest("ledger", &name).quick_retries(3))?;
            checkers.insert(name, Checker::default());
        }
        stage.host.component("hostile", &pelton_tests::tools::guest(guest)?)?;
        stage.host.manifest("hostile", &change(manifest("hostile", "hostile")))?;
        stage.host.start().await?;
        let pid = stage.host.pid();
        Ok(Self { stage, checkers, published: BTreeMap::new(), pid })
    }

    /// Publishes the next message of a key: sound to `ledger`, and to the hostile plug-in the order to do as it is told.
    pub(crate) async fn publish(&mut self, key: &str, order: &'static str) -> Result<()> {
        let orders = self.published.entry(key.to_owned()).or_default();
        orders.push(order);
        let n = orders.len() as u64;
        let id = format!("{key}-{n}");
        let message = match order {
            "" => ledger_message(format!("in.{key}"), &id, n, 64),
            order => Outgoing::new(format!("in.{key}"), format!("{{\"n\":{n},\"do\":\"{order}\"}}")).id(&*id),
        };
        self.stage.client.publish(&message).await?;
        for checker in self.checkers.values_mut() {
            checker.published(Published { key: key.to_owned(), n, id: id.clone() });
        }
        Ok(())
    }

    /// Reads the next events of all; gives back those that are not of sound consumers.
    pub(crate) async fn events(&mut self, count: usize) -> Result<Vec<pelton_tests::reader::Stored>> {
        let mut others = Vec::new();
        for event in self.stage.events(count).await? {
            let from = event.subject.split('.').nth(1).unwrap_or_default();
            match self.checkers.get_mut(from) {
                Some(checker) => checker.came_out(&event)?,
                None => others.push(event),
            }
        }
        Ok(others)
    }

    /// Fails unless each sound consumer has applied every message once and in order, and nothing else, without an attempt that failed; and the host is
    /// the process that it was.
    pub(crate) async fn the_nine_are_unharmed(&mut self) -> Result<()> {
        self.stage.no_more_events().await;
        for (name, checker) in &self.checkers {
            let verdict = checker.verdict();
            assert_eq!(verdict.violations.total(), 0, "{name}: {:?}", verdict.details);
            let status = self.stage.status_of(name).await?;
            assert_eq!((&status["retries"], &status["dead_letters"]), (&0.into(), &0.into()), "{name}: {status}");
            assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{name}: {status}");
        }
        assert_eq!(self.stage.host.exited()?, None, "the host lives");
        assert_eq!(self.stage.host.pid(), self.pid);
        let published: usize = self.published.values().map(Vec::len).sum();
        assert_eq!(self.stage.client.stream_size("IN").await?.0, published as u64, "the stream is whole");
        Ok(())
    }
}

/// A consumer of `in.>` that may emit to subjects of its own.
fn manifest(component: &str, name: &str) -> Manifest {
    let manifest = Manifest::new(&format!("{component}.wasm"), "IN", "in.>").emits(&format!("out.{name}.>"));
    manifest.section("[config]", &format!("out = \"out.{name}\""))
}

/// What came of the hostile messages, against the table.
async fn each_case_ended_as_it_should(crowd: &Crowd) -> Result<()> {
    let given_up = CASES.iter().filter(|(_, ending)| ending.is_some()).count();
    let letters = crowd.stage.host.wait_dead_letters("hostile", given_up, 2 * SOON).await?;
    let by_key: BTreeMap<&str, &Value> =
        letters.iter().filter_map(|letter| Some((letter["key"].as_str()?, letter))).collect();
    assert_eq!((letters.len(), by_key.len()), (given_up, given_up), "one for each");
    let log = crowd.stage.host.log();
    for (case, ending) in CASES {
        let Some((kind, reason)) = ending else { continue };
        let letter = by_key.get(case).with_context(|| format!("no dead letter of {case}"))?;
        let (cause, attempts) = if kind == "reject" { ("rejected", 1) } else { ("exhausted", 2) };
        assert_eq!((&letter["cause"], &letter["attempts"]), (&cause.into(), &attempts.into()), "{case}: {letter}");
        for attempt in letter["history"].as_array().context("a history")? {
            assert_eq!(attempt["kind"], kind, "{case}: {letter}");
            assert!(attempt["reason"].to_string().contains(reason), "{case}: {reason:?} is not in {letter}");
        }
        let line = log.lines().find(|line| line.contains("given up") && line.contains(&format!("key=\"{case}\"")));
        let line = line.with_context(|| format!("the log has no line about {case}"))?;
        assert!(line.contains("consumer=hostile"), "{line}");
    }
    let status = crowd.stage.status_of("hostile").await?;
    assert_eq!(status["dead_letters"], given_up, "{status}");
    Ok(())
}

#[tokio::test]
async fn nine_consumers_beside_a_hostile_one_are_unharmed_by_anything_that_it_does() -> Result<()> {
    let limits = "timeout_ms = 3000\nmemory_bytes = 33554432";
    let change = |manifest: Manifest| manifest.section("[limits]", limits).section("[retry]", HOSTILE_RETRY);
    let mut crowd = Crowd::with("hostile", "", change).await?;
    let resident_before = crowd.stage.host.usage()?.resident_bytes;
    // Every key has state of all ten before the hostile one begins, so that there is something to reach for.
    for (case, _) in CASES {
        crowd.publish(case, "").await?;
    }
    let mut hostile = crowd.events(CASES.len() * (SOUND + 1)).await?;
    // More to read than an attempt may.
    for _ in 0..11 {
        crowd.publish("scan", "fill").await?;
    }
    let mut sound = 0;
    for (case, _) in CASES {
        crowd.publish(case, case).await?;
        for _ in 0..3 {
            sound += 1;
            crowd.publish(&format!("sound-key-{}", sound % 7), "").await?;
        }
    }
    let applied = CASES.iter().filter(|(_, ending)| ending.is_none()).count();
    let messages = 11 + CASES.len() + sound;
    hostile.extend(crowd.events(messages * SOUND + 11 + applied + sound).await?);
    each_case_ended_as_it_should(&crowd).await?;
    crowd.the_nine_are_unharmed().await?;
    check_hostile_events(&hostile)?;
    let grown = crowd.stage.host.usage()?.resident_bytes.saturating_sub(resident_before);
    assert!(grown < GROWN_BYTES_MAX, "the memory is back to where it was, and a bit: {grown} bytes more");
    let log_bytes = crowd.stage.host.log().len();
    assert!(log_bytes < 1 << 20, "the floods are cut: the log has {log_bytes} bytes");
    Ok(())
}

/// What the hostile consumer left where it kept to the rules: counts that rise by one in each key, and nothing of anyone else's.
fn check_hostile_events(events: &[pelton_tests::reader::Stored]) -> Result<()> {
    let mut applied: BTreeMap<&str, u64> = BTreeMap::new();
    for event in events {
        let key = event.subject.strip_prefix("out.hostile.").with_context(|| event.subject.clone())?;
        let body: Value = event.json()?;
        let count = applied.entry(key).or_default();
        *count += 1;
        assert_eq!(body["applied"], *count, "{key}: {body}");
        assert_eq!(body["found"].as_array().map(Vec::len), Some(0), "{key}: {body}");
    }
    for (case, ending) in CASES {
        let wanted = if case == "scan" { 12 } else { 1 + u64::from(ending.is_none()) };
        assert_eq!(applied.get(case), Some(&wanted), "{case}");
    }
    Ok(())
}

#[tokio::test]
async fn a_plug_in_that_loops_before_its_handler_is_called_harms_nobody_else() -> Result<()> {
    let change =
        |manifest: Manifest| manifest.section("[limits]", "timeout_ms = 100").section("[retry]", HOSTILE_RETRY);
    let mut crowd = Crowd::with("init-later", "", change).await?;
    for key in 0..5 {
        for _ in 0..20 {
            crowd.publish(&format!("k{key}"), "").await?;
        }
    }
    assert!(crowd.events(100 * SOUND).await?.is_empty(), "the hostile one comes to nothing");
    crowd.the_nine_are_unharmed().await?;
    let letters = crowd.stage.host.wait_dead_letters("hostile", 1, SOON).await?;
    for letter in &letters {
        assert_eq!(letter["history"][0]["kind"], "timeout", "{letter}");
    }
    Ok(())
}
