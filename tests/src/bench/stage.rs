//! Where contestants meet the work: a server whose streams hold it, published once, and an output stream that is made anew for each run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::figures::{RATE, Reading, SERVER_CPU_US};
use super::meter::us_per_message;
use super::work::{Expected, Source, Work, publish};
use crate::client::{Client, StreamSpec};
use crate::nats::NatsServer;
use crate::process::Usage;
use crate::progress::Progress;
use crate::wait;

/// The stream of the events.
pub(crate) const OUTPUT: &str = "BENCH-OUT";

/// How long a contestant may take for everything.
const LIMIT: Duration = Duration::from_secs(900);

/// How long JetStream itself knows an id again in the streams of the work: the shortest that it takes, so that repetitions reach the contestants.
const WINDOW: Duration = Duration::from_millis(100);

/// The server forgets ids by a timer of its own: a repetition comes no sooner than this after the first one.
const REPEATED_AFTER: Duration = Duration::from_millis(400);

/// A server with the work on it.
pub(crate) struct Stage {
    /// The server.
    pub(crate) nats: NatsServer,
    /// The harness's own connection.
    pub(crate) client: Client,
    /// What is on it.
    pub(crate) work: Work,
    source: Source,
}

impl Stage {
    /// A server with empty streams for a work.
    ///
    /// # Errors
    /// The server does not come up.
    pub(crate) async fn empty(work: &Work) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let client = nats.client().await?;
        for consumer in 0..work.consumers {
            let spec = StreamSpec::new(&Work::stream(consumer), &Work::subjects(consumer)).duplicate_window(WINDOW);
            client.create_stream(&spec).await?;
        }
        client.create_stream(&StreamSpec::new(OUTPUT, "out.>")).await?;
        Ok(Self { nats, client, work: work.clone(), source: Source::new(work) })
    }

    /// A server with all of a work published.
    ///
    /// # Errors
    /// The server does not come up, or does not take the messages.
    pub(crate) async fn with(work: &Work) -> Result<Self> {
        let mut stage = Self::empty(work).await?;
        stage.publish(work.total()).await?;
        Ok(stage)
    }

    /// Publishes the next `count` messages of the work.
    ///
    /// # Errors
    /// The server does not take them, or takes one for a repetition of its own.
    pub(crate) async fn publish(&mut self, count: u64) -> Result<()> {
        let progress = Progress::new("publishing", count);
        publish(&self.client, &mut self.source, count, REPEATED_AFTER, |done| progress.at(done)).await?;
        let mut stored = 0;
        for consumer in 0..self.work.consumers {
            stored += self.client.stream_size(&Work::stream(consumer)).await?.0;
        }
        let sent = self.source.drawn();
        ensure!(stored == sent, "JetStream stored {stored} of {sent} messages: it dropped repetitions by itself");
        Ok(())
    }

    /// What the messages published so far must lead to.
    pub(crate) fn expected(&self) -> Expected {
        self.source.expected()
    }

    /// An output stream with nothing in it, and no consumers left of whoever ran before.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.client.delete_stream(OUTPUT).await?;
        self.client.create_stream(&StreamSpec::new(OUTPUT, "out.>")).await?;
        for consumer in 0..self.work.consumers {
            let stream = Work::stream(consumer);
            for name in self.client.consumer_names(&stream).await? {
                self.client.delete_consumer(&stream, &name).await?;
            }
        }
        Ok(())
    }

    /// CPU time of the server so far, in milliseconds.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn server_cpu_ms(&self) -> Result<u64> {
        Ok(Usage::of(self.nats.pid().context("the server runs")?)?.cpu_ms)
    }

    /// Waits until so many events have been stored.
    ///
    /// # Errors
    /// They are not there in a quarter of an hour; the error carries what `log` gives.
    pub(crate) async fn wait_events(&self, count: u64, log: impl Fn() -> String) -> Result<()> {
        let progress = Progress::new("running", count);
        let waiting = wait::until("every message has left its event", LIMIT, || async {
            // The server is busy with the run itself: it is asked now and then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (stored, _) = self.client.stream_size(OUTPUT).await?;
            progress.at(stored);
            Ok((stored >= count).then_some(()))
        });
        waiting.await.with_context(|| format!("the log:\n{}", log()))
    }

    /// Throughput from event `first` to event `last`, numbered from 1, and the server's CPU time by message.
    ///
    /// # Errors
    /// They are not there.
    pub(crate) async fn pace(&self, first: u64, last: u64, messages: u64, server_cpu_ms: u64) -> Result<Reading> {
        let began = self.client.stored_at_ms(OUTPUT, first).await?;
        let ended = self.client.stored_at_ms(OUTPUT, last).await?;
        let seconds = ended.saturating_sub(began).max(1) as f64 / 1_000.0;
        Ok(super::figures::reading([
            (RATE, messages as f64 / seconds),
            (SERVER_CPU_US, us_per_message(server_cpu_ms, messages)),
        ]))
    }
}
