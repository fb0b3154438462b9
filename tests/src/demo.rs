//! `cargo xtask demo`: the whole in one run, judged by a calculation that shares nothing with the plug-ins.
//!
//! Retail events with repetitions and poison go through the chain `totals` → `notify` of the example, on a host with a server of its own. Half-way
//! the host is killed with SIGKILL and started again; then the totals plug-in is replaced by its second version while traffic flows.

mod calculation;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use calculation::Findings;

pub use run::run;

/// What to run it with.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// A CSV of invoice lines; none: generated ones.
    pub data: Option<PathBuf>,
    /// Rows to publish, at most; a file may have fewer.
    pub count: usize,
    /// The generator's seed.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct DemoReport {
    /// Rows published, each counted once.
    pub rows: u64,
    /// Repetitions published.
    pub duplicates: u64,
    /// Poison published.
    pub poison: u64,
    /// Rows whose event says what the calculation says.
    pub applied_once: u64,
    /// Dead letters that the host keeps.
    pub dead_letters: u64,
    /// Events and notifications that came out, different ones.
    pub events_out: u64,
    /// What differs from the calculation.
    pub findings: Findings,
    /// Events of the first and of the second version.
    pub versions: [u64; 2],
    /// Everything that went in.
    pub messages: u64,
    /// From the first publish to the last event, restart included.
    pub time: Duration,
}

impl DemoReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.complaints().is_empty()
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.findings.details.clone();
        if self.findings.total() > complaints.len() as u64 {
            complaints.push(format!("{} things differ from the independent calculation", self.findings.total()));
        }
        if self.applied_once != self.rows {
            complaints.push(format!("{} of {} rows were applied exactly once", self.applied_once, self.rows));
        }
        if self.dead_letters != self.poison {
            complaints.push(format!("{} dead letters for {} poison messages", self.dead_letters, self.poison));
        }
        if self.versions.contains(&0) {
            complaints.push("one of the two versions never served".to_owned());
        }
        complaints
    }

    /// The numbers as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let seconds = self.time.as_secs_f64().max(0.001);
        let [first, second] = self.versions;
        let findings = &self.findings;
        let rows = [
            ("published (rows + duplicates + poison)", self.messages),
            ("applied once", self.applied_once),
            ("duplicates skipped", self.duplicates.saturating_sub(findings.doubled)),
            ("dead letters", self.dead_letters),
            ("events out", self.events_out),
            ("  by version 1 of totals", first),
            ("  by version 2 of totals", second),
            ("lost", findings.lost),
            ("doubled", findings.doubled),
            ("out of order", findings.out_of_order),
            ("other than calculated", findings.wrong),
            ("messages per second, restart included", (self.messages as f64 / seconds) as u64),
        ];
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        for (name, value) in rows {
            table.add_row([name.to_owned(), value.to_string()]);
        }
        table.to_string()
    }

    /// The last word.
    #[must_use]
    pub fn verdict(&self) -> String {
        let complaints = self.complaints();
        if complaints.is_empty() {
            return "verdict: every total and every notification is as calculated; nothing lost, doubled or out of order".to_owned();
        }
        format!("verdict: NOT as calculated\n  {}", complaints.join("\n  "))
    }
}
