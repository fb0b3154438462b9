//! Consumer manifests as a test writes them: what matters for the test is named, the rest is left to the defaults.

use std::fmt::Write as _;

/// A manifest under construction. Every method takes text in the manifest's own format, so that nothing is tested that a user
/// could not write.
#[derive(Clone, Debug)]
pub struct Manifest {
    component: String,
    stream: String,
    subjects: Vec<String>,
    subscription: String,
    key: String,
    emits: Vec<String>,
    sections: Vec<(String, String)>,
}

impl Manifest {
    /// A consumer of one subject; its key is the second token of the subject.
    #[must_use]
    pub fn new(component: &str, stream: &str, subject: &str) -> Self {
        Self {
            component: component.to_owned(),
            stream: stream.to_owned(),
            subjects: vec![subject.to_owned()],
            subscription: String::new(),
            key: "subject_token = 2".to_owned(),
            emits: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Replaces the rule for the key, for example `header = "customer"`.
    #[must_use]
    pub fn key(mut self, rule: &str) -> Self {
        self.key = rule.to_owned();
        self
    }

    /// Adds lines to `[subscription]`.
    #[must_use]
    pub fn subscription(mut self, lines: &str) -> Self {
        let _ = writeln!(self.subscription, "{lines}");
        self
    }

    /// Grants one pattern of subjects to emit to.
    #[must_use]
    pub fn emits(mut self, pattern: &str) -> Self {
        self.emits.push(pattern.to_owned());
        self
    }

    /// Adds a section: its header with brackets, and its lines.
    #[must_use]
    pub fn section(mut self, header: &str, lines: &str) -> Self {
        self.sections.push((header.to_owned(), lines.to_owned()));
        self
    }

    /// Retries that a test can wait for: this many attempts, a few milliseconds apart.
    #[must_use]
    pub fn quick_retries(self, attempts_max: u32) -> Self {
        let lines = format!("attempts_max = {attempts_max}\nfirst_delay_ms = 20\nlongest_delay_ms = 100");
        self.section("[retry]", &lines)
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        let quoted = |texts: &[String]| {
            let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
            quoted.join(", ")
        };
        let mut text = format!(
            "component = \"{}\"\n\n[subscription]\nstream = \"{}\"\nsubjects = [{}]\n{}\n[key]\n{}\n\n[grants]\nemit = [{}]\n",
            self.component,
            self.stream,
            quoted(&self.subjects),
            self.subscription,
            self.key,
            quoted(&self.emits)
        );
        for (header, lines) in &self.sections {
            let _ = write!(text, "\n{header}\n{lines}\n");
        }
        text
    }
}
