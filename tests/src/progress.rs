//! Says on standard error how far a command is: a bar on a terminal, plain lines now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far something is that has a known end.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// Begins; `total` is what `at` will reach.
    #[must_use]
    pub fn new(what: &str, total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:<34} {bar:40} {pos}/{len} {elapsed}");
            let bar = ProgressBar::new(total).with_message(what.to_owned());
            style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
        });
        if bar.is_none() {
            eprintln!("{what} …");
        }
        Self { bar, what: what.to_owned(), total, last_line: Mutex::new(Instant::now()) }
    }

    /// So much is done.
    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("{}: {done} of {}", self.what, self.total);
        }
    }

    /// A line for the reader that stays.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

/// A line about a step that has no measurable progress.
pub fn say(line: &str) {
    eprintln!("{line}");
}
