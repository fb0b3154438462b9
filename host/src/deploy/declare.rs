//! Creates the streams that a manifest declares, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::board::Board;
use crate::config::{self, StreamSpec};
use crate::nats::{Connection, Ensured, Retention, StreamDeclaration, StreamError};

/// First pause before another try; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);

/// The streams of one consumer on their way. Dropping it ends the tries.
pub(super) struct Declaring(Option<AbortOnDropHandle<()>>);

impl Declaring {
    /// Tries all at once, so that the subscription finds them, and goes on in the background with those that could not be made. What fails
    /// is on the board for as long as it does; what the server refuses stays there.
    pub(super) async fn begin(
        connection: &Arc<Connection>,
        board: &Arc<Board>,
        consumer: &str,
        specs: &[StreamSpec],
    ) -> Self {
        let work = Work { connection: Arc::clone(connection), board: Arc::clone(board), consumer: consumer.into() };
        let left = work.pass(specs.iter().map(declaration).collect()).await;
        if left.is_empty() {
            return Self(None);
        }
        Self(Some(AbortOnDropHandle::new(tokio::spawn(work.go_on(left)))))
    }

    /// Ends the tries; nothing is written to the board any more when this is done.
    pub(super) async fn stop(self) {
        if let Some(task) = self.0 {
            task.abort();
            // The only outcome of interest is that it is over.
            _ = task.await;
        }
    }
}

struct Work {
    connection: Arc<Connection>,
    board: Arc<Board>,
    consumer: Box<str>,
}

impl Work {
    async fn go_on(self, mut left: Vec<StreamDeclaration>) {
        let mut pause = PAUSE_FIRST;
        while !left.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
            if !self.connection.connected().await {
                return;
            }
            left = self.pass(left).await;
        }
    }

    /// Tries each once; gives back those that are worth another try.
    async fn pass(&self, declarations: Vec<StreamDeclaration>) -> Vec<StreamDeclaration> {
        let mut left = Vec::new();
        for declared in declarations {
            if !self.ensure(&declared).await {
                left.push(declared);
            }
        }
        left
    }

    /// Whether there is nothing more to do.
    async fn ensure(&self, declared: &StreamDeclaration) -> bool {
        let consumer = &*self.consumer;
        let stream = &*declared.name;
        match self.connection.ensure_stream(declared).await {
            Ok(Ensured::Created) => tracing::info!(consumer, stream, "stream created"),
            Ok(Ensured::Present) => {}
            Ok(Ensured::Differs(warning)) => tracing::warn!(consumer, "{warning}"),
            Err(error) => {
                let text = format!("can't create the declared stream {stream}: {error}");
                self.board.note(consumer, |entry| {
                    if entry.streams.get(stream) != Some(&text) {
                        tracing::error!(consumer, stream, %error, "can't create a declared stream");
                    }
                    entry.streams.insert(stream.into(), text);
                });
                return matches!(error, StreamError::Refused { .. });
            }
        }
        self.board.note(consumer, |entry| _ = entry.streams.remove(stream));
        true
    }
}

fn declaration(spec: &StreamSpec) -> StreamDeclaration {
    StreamDeclaration {
        name: spec.name.as_str().into(),
        subjects: spec.subjects.iter().map(|subject| subject.as_str().into()).collect(),
        retention: match spec.retention {
            config::Retention::Limits => Retention::Limits,
            config::Retention::WorkQueue => Retention::WorkQueue,
            config::Retention::Interest => Retention::Interest,
        },
        max_age: Duration::from_secs(spec.max_age_hours.saturating_mul(3600)),
        max_bytes: spec.max_bytes,
        duplicate_window: Duration::from_millis(spec.duplicate_window_ms),
        replicas: u32::try_from(spec.replicas).unwrap_or(1),
    }
}
