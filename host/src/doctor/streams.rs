//! The streams that consumers read and emit to: settings that let messages go before they were handled, or events be stored twice.

use std::collections::BTreeMap;

use super::Finding;
use crate::admin::StatusView;
use crate::config::Manifest;
use crate::nats::{Inspector, Moment, StreamView, inspect::millisecond};

/// A window below this is shorter than what a host may need until it publishes an event again after a crash, in nanoseconds: two minutes, the server's default.
const WINDOW_NS_MIN: i64 = 120_000_000_000;
/// Clocks that differ by more than this make times hard to read, and by more than that wrong, in milliseconds.
const SKEW_MS_WARN: i64 = 2_000;
const SKEW_MS_FAIL: i64 = 60_000;

/// What is looked at.
pub struct Streams<'a> {
    /// Asks the server.
    pub inspector: &'a Inspector,
    /// The consumers.
    pub manifests: &'a [Manifest],
    /// What the host says, if there is one.
    pub host: Option<&'a StatusView>,
}

/// How far the slowest consumer of a stream is.
#[derive(Clone, Debug, Default)]
struct Slowest {
    name: String,
    floor: u64,
    /// The first message that it has not settled.
    next: Option<Moment>,
}

impl Streams<'_> {
    /// Looks at all of them.
    pub async fn look(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut skew_told = false;
        let read: BTreeMap<&str, &Manifest> =
            self.manifests.iter().map(|manifest| (manifest.subscription.stream.as_str(), manifest)).collect();
        for name in read.keys() {
            let thing = format!("stream {name}");
            let now_ms = jiff::Timestamp::now().as_millisecond();
            match self.inspector.stream(name).await {
                Err(error) => {
                    found.push(Finding::fail(thing, error, "check that this account may ask JetStream's API"))
                }
                Ok(None) if self.is_declared(name) => {
                    found.push(Finding::ok(thing, "does not exist yet; the host makes it when it starts"));
                }
                Ok(None) => found.push(Finding::fail(
                    thing,
                    "does not exist",
                    "create it, or declare it in a manifest under [[streams]]",
                )),
                Ok(Some(view)) => {
                    if let Some(server_ms) = millisecond(&view.ts).filter(|_| !skew_told) {
                        found.push(skew(now_ms - server_ms));
                        skew_told = true;
                    }
                    let slowest = self.slowest(name).await;
                    found.extend(judge_read(&thing, &view, slowest.as_ref(), now_ms));
                }
            }
        }
        found.extend(self.targets().await);
        found
    }

    fn is_declared(&self, name: &str) -> bool {
        self.manifests.iter().flat_map(|manifest| &manifest.streams).any(|stream| stream.name == name)
    }

    async fn slowest(&self, stream: &str) -> Option<Slowest> {
        let consumers = self.host?.consumers.iter().filter(|consumer| consumer.stream.as_deref() == Some(stream));
        let slowest = consumers
            .filter(|consumer| consumer.pending > 0 || consumer.held > 0)
            .min_by_key(|consumer| consumer.floor)?;
        let next = self.inspector.first_from(stream, slowest.floor + 1).await.ok().flatten();
        Some(Slowest { name: slowest.name.clone(), floor: slowest.floor, next })
    }

    /// Where events go to.
    async fn targets(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        for manifest in self.manifests {
            for subject in &manifest.grants.emit {
                let thing = format!("events of {} to {subject}", manifest.name);
                let streams = match self.inspector.streams_of(subject).await {
                    Ok(streams) => streams,
                    Err(error) => {
                        found.push(Finding::warn(thing, error, "check that this account may ask JetStream's API"));
                        continue;
                    }
                };
                if streams.is_empty() {
                    found.push(Finding::warn(
                        thing,
                        "no stream takes them in: they would stay in the outbox",
                        "create one, or declare it in a manifest under [[streams]]",
                    ));
                }
                for name in streams {
                    if seen.insert(name.clone(), ()).is_none()
                        && let Ok(Some(view)) = self.inspector.stream(&name).await
                    {
                        found.extend(judge_target(&format!("stream {name}"), &view));
                    }
                }
            }
        }
        found
    }
}

fn skew(ahead_ms: i64) -> Finding {
    let text = format!(
        "this machine is {} ms {} the server",
        ahead_ms.abs(),
        if ahead_ms < 0 { "behind" } else { "ahead of" }
    );
    let help = "keep both in step with NTP: times of messages and of expiry come from both";
    match ahead_ms.abs() {
        0..=SKEW_MS_WARN => Finding::ok("clock", text),
        ms if ms <= SKEW_MS_FAIL => Finding::warn("clock", text, help),
        _ => Finding::fail("clock", text, help),
    }
}

/// A stream that is read.
fn judge_read(thing: &str, view: &StreamView, slowest: Option<&Slowest>, now_ms: i64) -> Vec<Finding> {
    let config = &view.config;
    let mut found = kept(thing, view);
    let limited = [
        (config.max_msgs, "max_msgs"),
        (config.max_bytes, "max_bytes"),
        (config.max_msgs_per_subject, "max_msgs_per_subject"),
    ];
    let limits: Vec<&str> = limited.iter().filter(|(limit, _)| *limit > 0).map(|(_, name)| *name).collect();
    if !limits.is_empty() && config.discard != "new" {
        let text = format!("at {} it drops its oldest messages, handled or not", limits.join(" and "));
        found.push(Finding::warn(
            thing,
            text,
            "discard new refuses publishes instead, so that publishers notice; or raise the limit",
        ));
    }
    if let Some(slowest) = slowest {
        let gone = view.state.first_seq.saturating_sub(slowest.floor + 1);
        if gone > 0 && config.retention == "limits" {
            let text = format!(
                "its first message is {}, and consumer {} stands at {}: up to {gone} messages went before they were handled",
                view.state.first_seq, slowest.name, slowest.floor
            );
            found.push(Finding::fail(thing, text, "raise the stream's limits, and let the consumer catch up"));
        }
        let waits_ms = slowest.next.map_or(0, |next| now_ms - next.at_ms);
        let age_ms = config.max_age / 1_000_000;
        if age_ms > 0 && waits_ms.saturating_mul(2) > age_ms {
            let text = format!(
                "the oldest message that consumer {} has not settled is {waits_ms} ms old, and max_age is {age_ms} ms",
                slowest.name
            );
            found.push(Finding::fail(
                thing,
                text,
                "raise max_age, or let the consumer catch up: `pelton explain` says what holds it",
            ));
        }
    }
    if found.is_empty() {
        let text = format!(
            "{} retention, discard {}, {} storage, {} replicas",
            config.retention, config.discard, config.storage, config.num_replicas
        );
        found.push(Finding::ok(thing, text));
    }
    found
}

/// A stream that events go to.
fn judge_target(thing: &str, view: &StreamView) -> Vec<Finding> {
    let config = &view.config;
    let mut found = kept(thing, view);
    if config.no_ack {
        found.push(Finding::fail(
            thing,
            "no_ack is set: events sent to it are never known to be stored and stay in the outbox",
            "create it without no_ack",
        ));
    }
    if config.sealed {
        found.push(Finding::fail(thing, "it is sealed: nothing can be added", "emit to another stream"));
    }
    if config.duplicate_window < WINDOW_NS_MIN {
        let text = format!(
            "its duplicate window is {} ms: an event that is published again later than that, after a crash, is stored twice",
            config.duplicate_window / 1_000_000
        );
        found.push(Finding::warn(
            thing,
            text,
            "2 minutes or more; readers that know ids again, as Pelton's consumers do, don't need it",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(
            thing,
            format!("takes events in, and knows their ids again for {} s", config.duplicate_window / 1_000_000_000),
        ));
    }
    found
}

/// Whether it keeps what it holds.
fn kept(thing: &str, view: &StreamView) -> Vec<Finding> {
    let mut found = Vec::new();
    if view.config.storage == "memory" {
        found.push(Finding::fail(thing, "it is kept in memory: gone with its server", "create it with file storage"));
    }
    if view.config.num_replicas == 1 {
        found.push(Finding::warn(thing, "it is kept on one server", "3 replicas in a cluster survive the loss of one"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn sound() -> StreamView {
        let mut view = StreamView::default();
        view.config.retention = "limits".into();
        view.config.discard = "old".into();
        view.config.storage = "file".into();
        view.config.num_replicas = 3;
        view.config.duplicate_window = WINDOW_NS_MIN;
        view.state.first_seq = 1;
        view
    }

    fn levels(found: &[Finding]) -> Vec<Level> {
        assert!(found.iter().all(|finding| (finding.level == Level::Ok) == finding.help.is_none()), "{found:?}");
        found.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_sound_stream_is_one_finding() {
        assert_eq!(levels(&judge_read("s", &sound(), None, 0)), [Level::Ok]);
        assert_eq!(levels(&judge_target("s", &sound())), [Level::Ok]);
    }

    #[test]
    fn what_drops_messages_that_nobody_handled_is_found() {
        let slow = Slowest { name: "c".into(), floor: 9, next: Some(Moment { sequence: 10, at_ms: 1_000 }) };
        let mut bounded = sound();
        bounded.config.max_bytes = 1 << 20;
        assert_eq!(levels(&judge_read("s", &bounded, None, 0)), [Level::Warn]);
        bounded.config.discard = "new".into();
        assert_eq!(levels(&judge_read("s", &bounded, None, 0)), [Level::Ok]);
        let mut aged = sound();
        aged.config.max_age = 10_000_000_000;
        assert_eq!(levels(&judge_read("s", &aged, Some(&slow), 6_001)), [Level::Fail]);
        assert_eq!(levels(&judge_read("s", &aged, Some(&slow), 5_999)), [Level::Ok]);
        let mut ahead = sound();
        ahead.state.first_seq = 12;
        assert_eq!(levels(&judge_read("s", &ahead, Some(&slow), 1_000)), [Level::Fail]);
    }

    #[test]
    fn what_loses_or_doubles_events_is_found() {
        let mut view = sound();
        view.config.no_ack = true;
        view.config.duplicate_window = 100_000_000;
        view.config.storage = "memory".into();
        view.config.num_replicas = 1;
        assert_eq!(levels(&judge_target("s", &view)), [Level::Fail, Level::Warn, Level::Fail, Level::Warn]);
    }

    #[test]
    fn clocks_that_differ_are_told() {
        assert_eq!(levels(&[skew(-2_000), skew(2_001), skew(-60_001)]), [Level::Ok, Level::Warn, Level::Fail]);
    }
}
