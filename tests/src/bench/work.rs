//! The work *order-counter*: which messages there are, and a check of the events that they must lead to.
//!
//! Everything follows from the work's settings: whoever draws the same number of messages knows the same expectations. So a contestant that handles only the
//! first part of a stream is checked as well.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::chain;
use crate::checker::{LedgerEvent, Violations};
use crate::client::{Client, Outgoing};
use crate::random::{Random, Zipf};

/// The part of all messages that repeats an earlier one, under its id.
const REPEATS: f64 = 0.02;

/// A repeated message comes at least so many messages behind the first one, and at most four times as many.
const DISTANCE: u64 = 8_192;

/// How long the events may take to be read.
const READ_LIMIT: Duration = Duration::from_secs(600);

/// Which messages there are.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// How many, repeated ones included.
    pub(crate) messages: u64,
    /// Over how many keys.
    pub(crate) keys: u64,
    /// 0: every key is as likely as the others; else the exponent of a zipf distribution.
    pub(crate) exponent: f64,
    /// Bytes of a message's payload.
    pub(crate) payload_bytes: usize,
    /// Bytes of a key's state.
    pub(crate) state_bytes: usize,
    /// Over how many consumers, each with a stream of its own: a key belongs to one of them.
    pub(crate) consumers: u64,
    /// Whether there is a message of each key before the others, and on top of `messages`.
    pub(crate) each_key_first: bool,
}

impl Work {
    /// The main work: 1,000 keys, all as likely, 256 bytes a message and 100 of state, one consumer.
    pub(crate) fn uniform(messages: u64) -> Self {
        Self {
            messages,
            keys: 1_000,
            exponent: 0.0,
            payload_bytes: 256,
            state_bytes: 100,
            consumers: 1,
            each_key_first: false,
        }
    }

    /// Messages in all.
    pub(crate) fn total(&self) -> u64 {
        self.messages + if self.each_key_first { self.keys } else { 0 }
    }

    /// The stream of a consumer.
    pub(crate) fn stream(consumer: u64) -> String {
        format!("BENCH-{consumer}")
    }

    /// The subjects of a consumer's stream.
    pub(crate) fn subjects(consumer: u64) -> String {
        format!("bench{consumer}.*")
    }
}

/// One message that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// Its key.
    pub(crate) key: u64,
    /// Its number within the key, from 1.
    pub(crate) n: u64,
    /// Its place among all, or that of the one that it repeats.
    pub(crate) first_at: u64,
    /// Whether it repeats an earlier one.
    pub(crate) repeats: bool,
}

/// Draws the messages of a work, one after the other, and counts what they must lead to.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    work: Work,
    random: Random,
    zipf: Option<Zipf>,
    drawn: u64,
    /// Those that may be repeated later, oldest first.
    recent: VecDeque<Drawn>,
    /// Messages by key, repeated ones not counted.
    counts: Vec<u64>,
}

impl Source {
    pub(crate) fn new(work: &Work) -> Self {
        let keys = usize::try_from(work.keys).unwrap_or(usize::MAX);
        Self {
            random: Random::new(1),
            zipf: (work.exponent > 0.0).then(|| Zipf::new(keys, work.exponent)),
            drawn: 0,
            recent: VecDeque::new(),
            counts: vec![0; keys],
            work: work.clone(),
        }
    }

    /// Behind how many messages a repetition comes at the earliest.
    pub(crate) fn distance(&self) -> u64 {
        DISTANCE.min(self.work.messages / 4).max(1)
    }

    /// How many were drawn so far.
    pub(crate) fn drawn(&self) -> u64 {
        self.drawn
    }

    /// What the messages drawn so far must lead to.
    pub(crate) fn expected(&self) -> Expected {
        Expected { counts: self.counts.clone() }
    }

    /// The next message.
    pub(crate) fn draw(&mut self) -> Drawn {
        let at = self.drawn;
        self.drawn += 1;
        let preload = if self.work.each_key_first { self.work.keys } else { 0 };
        let repeated = if at >= preload && self.random.chance(REPEATS) { self.repeatable(at) } else { None };
        if let Some(first) = repeated {
            return Drawn { repeats: true, ..first };
        }
        let key = if at < preload { at } else { self.key() };
        let n = usize::try_from(key).ok().and_then(|index| self.counts.get_mut(index)).map_or(1, |count| {
            *count += 1;
            *count
        });
        let drawn = Drawn { key, n, first_at: at, repeats: false };
        self.recent.push_back(drawn);
        drawn
    }

    fn key(&mut self) -> u64 {
        match &self.zipf {
            Some(zipf) => zipf.draw(&mut self.random) as u64,
            None => self.random.between(0, self.work.keys),
        }
    }

    /// One that lies far enough back, if there is any.
    fn repeatable(&mut self, at: u64) -> Option<Drawn> {
        let distance = self.distance();
        let oldest = at.saturating_sub(4 * distance);
        while self.recent.front().is_some_and(|first| first.first_at < oldest) {
            self.recent.pop_front();
        }
        let far = self.recent.partition_point(|first| first.first_at + distance <= at);
        let pick = self.random.between(0, far as u64);
        // It is repeated once: JetStream would drop a second repetition that comes soon after.
        if far == 0 { None } else { self.recent.remove(usize::try_from(pick).ok()?) }
    }

    /// The message as it is published.
    pub(crate) fn outgoing(&self, drawn: Drawn) -> Outgoing {
        let Drawn { key, n, .. } = drawn;
        let head = format!("{{\"n\":{n},\"state_bytes\":{},\"pad\":\"", self.work.state_bytes);
        let pad = "x".repeat(self.work.payload_bytes.saturating_sub(head.len() + 2));
        let subject = format!("bench{}.k{key}", key % self.work.consumers.max(1));
        Outgoing::new(subject, format!("{head}{pad}\"}}")).id(format!("k{key}-{n}"))
    }
}

/// What the messages must lead to: for each key as many events as it has messages, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    counts: Vec<u64>,
}

impl Expected {
    /// What the first `messages` of a work must lead to.
    pub(crate) fn after(work: &Work, messages: u64) -> Self {
        let mut source = Source::new(work);
        (0..messages).for_each(|_| _ = source.draw());
        source.expected()
    }

    /// Events in all.
    pub(crate) fn events(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Reads all events and judges them: every message once, and those of a key in order.
    ///
    /// # Errors
    /// They can't be read, or what is there is no event of order-counter.
    pub(crate) async fn check(&self, client: &Client, stream: &str) -> Result<Violations> {
        let mut seen = vec![(0_u64, chain::START); self.counts.len()];
        let mut violations = Violations::default();
        let mut reader = client.read(stream);
        let (count, _) = client.stream_size(stream).await?;
        let deadline = tokio::time::Instant::now() + READ_LIMIT;
        let mut read = 0;
        while read < count {
            ensure!(tokio::time::Instant::now() < deadline, "only {read} of {count} events could be read");
            for stored in reader.some(Duration::from_millis(200)).await {
                read += 1;
                judge(&stored.json()?, &mut seen, &mut violations)?;
            }
        }
        for ((applied, _), expected) in seen.iter().zip(&self.counts) {
            violations.lost += expected.saturating_sub(*applied);
            violations.foreign += applied.saturating_sub(*expected);
        }
        Ok(violations)
    }
}

/// One event after those of its key before it.
fn judge(event: &LedgerEvent, seen: &mut [(u64, u64)], violations: &mut Violations) -> Result<()> {
    let key = event.key.strip_prefix('k').and_then(|digits| digits.parse::<usize>().ok());
    let Some((count, chain)) = key.and_then(|key| seen.get_mut(key)) else {
        violations.foreign += 1;
        return Ok(());
    };
    if event.n <= *count {
        violations.doubled += 1;
        return Ok(());
    }
    let follows = event.n == *count + 1 && event.count == event.n && event.chain == chain::fold(*chain, event.n);
    violations.reordered += u64::from(!follows);
    (*count, *chain) = (event.n, event.chain);
    Ok(())
}

/// Fails if something is wrong: a fast wrong answer is no result.
///
/// # Errors
/// What is wrong.
pub(crate) fn must_be_right(who: &str, violations: Violations) -> Result<()> {
    ensure!(violations.total() == 0, "{who} did the work wrongly: {violations:?}");
    Ok(())
}

/// Publishes the next `count` messages of a source; gives how many there are on the streams now.
///
/// JetStream itself drops a repetition that comes too soon, so none is sent before the first one is that old.
///
/// # Errors
/// The server does not take them all.
pub(crate) async fn publish(
    client: &Client,
    source: &mut Source,
    count: u64,
    window: Duration,
    mut at: impl FnMut(u64),
) -> Result<()> {
    let chunk = source.distance().min(4_096);
    let mut sent: VecDeque<(u64, tokio::time::Instant)> = VecDeque::new();
    let mut left = count;
    while left > 0 {
        let take = left.min(chunk);
        let drawn: Vec<Drawn> = (0..take).map(|_| source.draw()).collect();
        let newest_repeated = drawn.iter().filter(|drawn| drawn.repeats).map(|drawn| drawn.first_at).max();
        if let Some(newest) = newest_repeated {
            while sent.front().is_some_and(|(last, _)| *last < newest) {
                sent.pop_front();
            }
            if let Some((_, then)) = sent.front() {
                tokio::time::sleep_until(*then + window).await;
            }
        }
        let messages: Vec<Outgoing> = drawn.iter().map(|drawn| source.outgoing(*drawn)).collect();
        client.publish_all(&messages).await.context("publishing the work")?;
        sent.push_back((source.drawn().saturating_sub(1), tokio::time::Instant::now()));
        left -= take;
        at(count - left);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_two_in_a_hundred_and_lie_far_apart() {
        let work = Work::uniform(200_000);
        let mut source = Source::new(&work);
        let mut repeats = 0;
        let mut repeated = std::collections::HashSet::new();
        for at in 0..work.messages {
            let drawn = source.draw();
            if drawn.repeats {
                repeats += 1;
                assert!(repeated.insert(drawn.first_at), "repeated twice");
                assert!(drawn.first_at + DISTANCE <= at && drawn.first_at + 4 * DISTANCE >= at);
            } else {
                assert_eq!(drawn.first_at, at);
            }
        }
        assert!((3_000..5_000).contains(&repeats), "{repeats}");
        assert_eq!(source.expected().events(), work.messages - repeats);
        assert_eq!(Expected::after(&work, work.messages).counts, source.expected().counts);
    }

    #[test]
    fn a_message_has_the_size_that_was_asked_for() {
        let mut source = Source::new(&Work::uniform(1_000));
        let drawn = source.draw();
        let outgoing = source.outgoing(drawn);
        assert_eq!(outgoing.payload.len(), 256);
        assert!(outgoing.subject.starts_with("bench0.k"));
    }

    #[test]
    fn each_key_may_come_first() {
        let work = Work { keys: 50, each_key_first: true, ..Work::uniform(100) };
        let mut source = Source::new(&work);
        let keys: Vec<u64> = (0..50).map(|_| source.draw().key).collect();
        assert_eq!(keys, (0..50).collect::<Vec<u64>>());
    }

    #[test]
    fn events_that_are_wrong_are_noticed() {
        let event = |n: u64, count: u64, chain: u64| LedgerEvent {
            key: "k0".into(),
            id: format!("k0-{n}"),
            sequence: n,
            n,
            count,
            chain,
        };
        let (first, second) = (chain::fold(chain::START, 1), chain::fold(chain::fold(chain::START, 1), 2));
        let judged = |events: &[LedgerEvent]| {
            let (mut seen, mut violations) = (vec![(0, chain::START)], Violations::default());
            events.iter().for_each(|event| judge(event, &mut seen, &mut violations).unwrap());
            violations
        };
        assert_eq!(judged(&[event(1, 1, first), event(2, 2, second)]).total(), 0);
        assert_eq!(judged(&[event(1, 1, first), event(1, 2, first)]).doubled, 1);
        assert_eq!(judged(&[event(2, 2, second)]).reordered, 1);
        assert_eq!(judged(&[event(1, 1, first), event(2, 2, first)]).reordered, 1);
        assert_eq!(judged(&[LedgerEvent { key: "q".into(), ..event(1, 1, first) }]).foreign, 1);
    }
}
