//! From the publish of a message to its event, at a steady rate that the machine can easily keep.
//!
//! The harness publishes at 2,000 messages a second and hears the events as any subscriber of their subjects does: an event is there when nats-server hands it out.
//! In the same run it measures the base: what two publishes, each awaited, and one durable append take when nothing else goes on. And it measures the floor: bare
//! async-nats that passes each message on and keeps nothing, under the same load.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::Subscriber;
use async_nats::jetstream::context::PublishAckFuture;
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::contestants::Contestant;
use super::figures::{Case, P50_US, P99_US, P999_US, Reading, reading};
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::{OUTPUT, Stage};
use super::work::{Drawn, Source, Work, must_be_right};
use crate::checker::LedgerEvent;
use crate::client::Outgoing;
use crate::progress::say;

pub(crate) const BENCH: &str = "latency";

/// The case with nothing but broker and client library.
pub(crate) const FLOOR: &str = "floor";

/// The base, as a figure of each of Pelton's cases.
pub(crate) const BASE_US: &str = "base_us";
/// One publish, awaited, on an idle server: the median.
const PUBLISH_US: &str = "publish_round_trip_us";
/// One durable append: the median.
pub(crate) const APPEND_US: &str = "durable_append_us";

/// The same of which one of 100 takes longer.
pub(crate) const APPEND_P99_US: &str = "durable_append_p99_us";

/// Messages a second.
const RATE: u64 = 2_000;

/// Messages of a run in full: 20 s.
const MESSAGES: u64 = 40_000;

/// How often each part of the base is measured.
const BASE_SAMPLES: u64 = 1_000;

/// Bytes of a record of one message in a log.
const APPEND_BYTES: usize = 480;

/// The last event may come so long after its message.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs it.
///
/// # Errors
/// The host does not come up, or an event does not come.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let mut readings = Vec::new();
    for round in 1..=scale.runs {
        say(&format!("{BENCH}: {FLOOR}, run {round} of {}", scale.runs));
        readings.push(floor(&Work::uniform(scale.of(MESSAGES))).await?);
    }
    let about = format!("bare async-nats, each event with an id, at {RATE} messages a second");
    let mut cases = vec![Case::measured(BENCH, FLOOR, &about, &readings)];
    for isolation in Isolation::ALL {
        let about = format!("Pelton, isolation {}, at {RATE} messages a second", isolation.name());
        let pelton = Pelton::with(isolation);
        let work = Work::uniform(scale.of(MESSAGES));
        if let Some(reason) = pelton.refusal(&Stage::empty(&work).await?)? {
            cases.push(Case::missing(BENCH, isolation.name(), &about, &reason));
            continue;
        }
        let mut readings = Vec::new();
        for round in 1..=scale.runs {
            say(&format!("{BENCH}: {}, run {round} of {}", isolation.name(), scale.runs));
            readings.push(once(&pelton, &work, scale.of(BASE_SAMPLES)).await?);
        }
        cases.push(Case::measured(BENCH, isolation.name(), &about, &readings));
    }
    Ok(cases)
}

async fn once(pelton: &Pelton, work: &Work, samples: u64) -> Result<Reading> {
    let stage = Stage::empty(work).await?;
    let mut host = pelton.prepare(&stage)?;
    let publish_us = publish_round_trip_us(&stage, samples).await?;
    let appends = durable_appends(&host.path("append"), samples)?;
    let append_us = percentile(&appends, 0.5);
    host.start().await?;
    let events = async_nats::connect(stage.nats.url()).await?.subscribe("out.>").await?;
    let (source, messages) = messages(work);
    let took = at_a_rate(&stage, messages, events, Told::ById).await.with_context(|| host.log_tail())?;
    must_be_right("pelton", source.expected().check(&stage.client, OUTPUT).await?)?;
    let mut reading = percentiles(took);
    reading.extend([
        (PUBLISH_US.to_owned(), publish_us),
        (APPEND_US.to_owned(), append_us),
        (APPEND_P99_US.to_owned(), percentile(&appends, 0.99)),
        (BASE_US.to_owned(), publish_us + append_us + publish_us),
    ]);
    Ok(reading)
}

async fn floor(work: &Work) -> Result<Reading> {
    let stage = Stage::empty(work).await?;
    let (_, messages) = messages(work);
    let count = messages.len() as u64;
    let running = Contestant::FloorWithIds.start(&stage, count, count, None)?;
    running.wait_reading(&stage).await?;
    let events = async_nats::connect(stage.nats.url()).await?.subscribe("out.>").await?;
    let took = at_a_rate(&stage, messages, events, Told::ByOrder).await.with_context(|| running.log_tail())?;
    Ok(percentiles(took))
}

/// Those of the work that don't repeat another one, with their ids, and who knows what must come of them.
fn messages(work: &Work) -> (Source, Vec<(String, Outgoing)>) {
    let mut source = Source::new(work);
    let drawn: Vec<Drawn> = (0..work.messages).map(|_| source.draw()).filter(|drawn| !drawn.repeats).collect();
    let message = |drawn: &Drawn| (format!("k{}-{}", drawn.key, drawn.n), source.outgoing(*drawn));
    let messages = drawn.iter().map(message).collect();
    (source, messages)
}

/// How it is known which message an event is of.
#[derive(Clone, Copy)]
enum Told {
    /// It says so.
    ById,
    /// Events leave in the order in which messages come.
    ByOrder,
}

fn percentiles(mut took: Vec<u64>) -> Reading {
    took.sort_unstable();
    reading([(P50_US, percentile(&took, 0.5)), (P99_US, percentile(&took, 0.99)), (P999_US, percentile(&took, 0.999))])
}

/// Publishes messages at the rate and hears their events; how long each took, in nanoseconds.
async fn at_a_rate(
    stage: &Stage,
    messages: Vec<(String, Outgoing)>,
    mut events: Subscriber,
    told: Told,
) -> Result<Vec<u64>> {
    let count = messages.len();
    let ids: Vec<Arc<str>> = messages.iter().map(|(id, _)| id.as_str().into()).collect();
    let (sent, mut sent_at) = mpsc::unbounded_channel();
    let (client, runtime) = (stage.client.clone(), Handle::current());
    // A thread of its own: the runtime's timers know milliseconds only.
    let (asked, mut acks) = mpsc::unbounded_channel::<PublishAckFuture>();
    // Taken as they come: the client has room for some thousand that are not.
    let stored = tokio::spawn(async move {
        while let Some(ack) = acks.recv().await {
            ack.await.context("a message was not stored")?;
        }
        anyhow::Ok(())
    });
    let publishing = std::thread::spawn(move || -> Result<()> {
        let began = Instant::now();
        for (place, (id, message)) in messages.iter().enumerate() {
            let due = began + Duration::from_nanos(place as u64 * 1_000_000_000 / RATE);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Handing it to the client never waits for the host, so a slow host does not slow the load down.
            sent.send((id.clone(), Instant::now())).ok().context("nobody listens")?;
            asked
                .send(runtime.block_on(client.send(message))?)
                .ok()
                .context("nobody waits for the server's answers")?;
        }
        Ok(())
    });
    let mut heard: HashMap<Arc<str>, Instant> = HashMap::with_capacity(count);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(count as u64 / RATE) + LIMIT;
    while heard.len() < count {
        let event = tokio::time::timeout_at(deadline, events.next()).await;
        let now = Instant::now();
        let event = event.with_context(|| format!("{} of {count} events came", heard.len()))?;
        let payload = event.context("the subscription has ended")?.payload;
        let id = match told {
            Told::ById => serde_json::from_slice::<LedgerEvent>(&payload)?.id.into(),
            Told::ByOrder => Arc::clone(ids.get(heard.len()).context("more events than messages")?),
        };
        heard.entry(id).or_insert(now);
    }
    tokio::task::spawn_blocking(move || publishing.join()).await?.ok().context("the publisher panicked")??;
    stored.await??;
    let mut took = Vec::with_capacity(count);
    while let Ok((id, then)) = sent_at.try_recv() {
        let came = heard.get(id.as_str()).with_context(|| format!("no event of {id}"))?;
        took.push(u64::try_from(came.saturating_duration_since(then).as_nanos())?);
    }
    ensure!(took.len() == count, "{} of {count} messages were published", took.len());
    Ok(took)
}

/// The median time of a publish that is awaited, in microseconds.
async fn publish_round_trip_us(stage: &Stage, samples: u64) -> Result<f64> {
    let mut took = Vec::new();
    for number in 0..samples {
        let message = Outgoing::new("out.base", vec![b'x'; 256]).id(format!("base-{number}"));
        let began = Instant::now();
        stage.client.publish(&message).await?;
        took.push(u64::try_from(began.elapsed().as_nanos())?);
    }
    stage.clear().await?;
    took.sort_unstable();
    Ok(percentile(&took, 0.5))
}

/// How long appends took that are durable, in nanoseconds, sorted.
fn durable_appends(path: &Path, samples: u64) -> Result<Vec<u64>> {
    let mut file = File::create(path).context("a file for the base")?;
    let record = vec![b'x'; APPEND_BYTES];
    let mut took = Vec::new();
    for _ in 0..samples {
        let began = Instant::now();
        file.write_all(&record)?;
        file.sync_data()?;
        took.push(u64::try_from(began.elapsed().as_nanos())?);
    }
    took.sort_unstable();
    Ok(took)
}

/// Of sorted nanoseconds: so large a part is no larger than this many microseconds.
fn percentile(sorted: &[u64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(0) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let sorted: Vec<u64> = (1..=1_000).map(|n| n * 1_000).collect();
        assert_eq!(percentile(&sorted, 0.5), 500.0);
        assert_eq!(percentile(&sorted, 0.99), 990.0);
        assert_eq!(percentile(&sorted, 0.999), 999.0);
        assert_eq!(percentile(&[7_000], 0.999), 7.0);
    }
}
