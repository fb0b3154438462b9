//! The lines that a plug-in writes: through `log`, and through the standard streams. All end in the host's log, within the budgets of the attempt and of the
//! consumer (see [`super::output`]).

use tracing::Level;

use super::attempt::Attempt;
use crate::telemetry::printable;

/// Lines of one attempt that reach the log through `log`.
const LOG_LINES_MAX: usize = 64;
/// Their bytes, fields included.
const LOG_BYTES_MAX: usize = 64 << 10;
/// Bytes of one attempt that reach the log through stdout and stderr together.
const STREAM_BYTES_MAX: usize = 64 << 10;
/// The end of stderr that is kept to explain a trap: a panic's message is there.
const STDERR_TAIL_BYTES: usize = 1 << 10;

/// One of a plug-in's standard output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// A line that an attempt wrote, as it went to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its level, in capital letters.
    pub level: &'static str,
    /// Where it came from: `log`, `stdout`, `stderr`, or `host` for what the host adds.
    pub source: &'static str,
    /// The text, with control characters escaped.
    pub text: String,
    /// The fields, `name=value` with spaces between; empty if there are none.
    pub fields: String,
}

/// What an attempt has written so far.
#[derive(Default)]
pub(super) struct Lines {
    /// What is kept for whoever asked for it; none: nobody did.
    kept: Option<Vec<Line>>,
    /// Nothing reaches the log: the attempt is made a second time, and its lines are there already.
    pub(super) muted: bool,
    log_lines: usize,
    log_bytes: usize,
    log_dropped: usize,
    stream_bytes: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    stderr_tail: Vec<u8>,
}

impl Lines {
    /// Keeps what comes, besides sending it to the log.
    pub(super) fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// The lines that were kept.
    pub(super) fn take(&mut self) -> Vec<Line> {
        self.kept.take().unwrap_or_default()
    }

    fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// The last that was written to stderr, on one line; none if nothing was.
    pub(super) fn stderr_tail(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.stderr_tail);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        self.stderr_tail.extend_from_slice(bytes);
        let excess = self.stderr_tail.len().saturating_sub(STDERR_TAIL_BYTES);
        self.stderr_tail.drain(..excess);
    }
}

/// An event at a level that is known only at run time: `tracing` wants each level at a place of its own.
macro_rules! at_level {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::TRACE => tracing::trace!(target: "plugin", $($fields)*),
            Level::DEBUG => tracing::debug!(target: "plugin", $($fields)*),
            Level::INFO => tracing::info!(target: "plugin", $($fields)*),
            Level::WARN => tracing::warn!(target: "plugin", $($fields)*),
            Level::ERROR => tracing::error!(target: "plugin", $($fields)*),
        }
    };
}

/// Whether the host's log takes plug-ins' lines of a level. What it does not take costs no budget.
fn is_logged(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: "plugin", Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: "plugin", Level::DEBUG),
        Level::INFO => tracing::enabled!(target: "plugin", Level::INFO),
        Level::WARN => tracing::enabled!(target: "plugin", Level::WARN),
        Level::ERROR => tracing::enabled!(target: "plugin", Level::ERROR),
    }
}

impl Attempt {
    /// A line of the `log` interface. Past the budget it is dropped and counted.
    pub(super) fn log(&mut self, level: Level, text: &str, fields: &[(String, String)]) {
        let bytes = text.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let lines = &mut self.lines;
        if lines.log_lines == LOG_LINES_MAX || lines.log_bytes + bytes > LOG_BYTES_MAX {
            lines.log_dropped += 1;
            return;
        }
        lines.log_lines += 1;
        lines.log_bytes += bytes;
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.write_line(level, "log", text, &fields.join(" "));
    }

    /// What a plug-in wrote to a standard stream. Complete lines reach the log at once; past the budget all is dropped.
    pub(super) fn write_stream(&mut self, stream: Stream, bytes: &[u8]) {
        let room = STREAM_BYTES_MAX - self.lines.stream_bytes;
        let (bytes, _) = bytes.split_at(bytes.len().min(room));
        self.lines.stream_bytes += bytes.len();
        if stream == Stream::Stderr {
            self.lines.keep_tail(bytes);
        }
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.lines.pending(stream).extend_from_slice(piece);
            self.flush_line(stream);
        }
        self.lines.pending(stream).extend_from_slice(last);
    }

    /// Ends the attempt's output: what has no newline yet, and how much was dropped.
    pub(super) fn finish_lines(&mut self) {
        self.flush_line(Stream::Stdout);
        self.flush_line(Stream::Stderr);
        if self.lines.log_dropped > 0 && !self.lines.muted {
            self.identity.output.dropped_by_attempt(self.lines.log_dropped as u64);
            let text = format!("{} log lines dropped: an attempt may write {LOG_LINES_MAX}", self.lines.log_dropped);
            self.write_line(Level::WARN, "host", &text, "");
        }
    }

    fn flush_line(&mut self, stream: Stream) {
        let line = std::mem::take(self.lines.pending(stream));
        if line.is_empty() {
            return;
        }
        let (level, source) = match stream {
            Stream::Stdout => (Level::INFO, "stdout"),
            Stream::Stderr => (Level::WARN, "stderr"),
        };
        self.write_line(level, source, &String::from_utf8_lossy(&line), "");
    }

    fn write_line(&mut self, level: Level, source: &'static str, text: &str, fields: &str) {
        if self.lines.muted {
            return;
        }
        let message = self.transaction.message();
        let (text, fields) = (printable(text), printable(fields));
        if is_logged(level) && self.identity.output.may_write() {
            at_level!(
                level,
                consumer = %self.identity.consumer,
                version = %self.version.short(),
                message_id = %message.id,
                key = message.key.as_deref(),
                source,
                fields = (!fields.is_empty()).then_some(fields.as_ref()),
                "{text}"
            );
        }
        let line = || Line {
            level: level.as_str(),
            source,
            text: text.clone().into_owned(),
            fields: fields.clone().into_owned(),
        };
        if let Some(kept) = &mut self.lines.kept {
            kept.push(line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_stderr_is_kept_to_explain_a_trap() {
        let mut lines = Lines::default();
        assert_eq!(lines.stderr_tail(), None);
        lines.keep_tail(&[b'x'; 5_000]);
        lines.keep_tail(b"\npanicked at src/lib.rs:5:\n  why\n");
        let tail = lines.stderr_tail().unwrap();
        assert!(tail.len() <= STDERR_TAIL_BYTES + 8 && tail.ends_with("; panicked at src/lib.rs:5:; why"), "{tail}");
    }
}
