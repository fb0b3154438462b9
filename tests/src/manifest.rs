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
    top: String,
    /// None: the subscription is shared.
    key: Option<String>,
    retry: String,
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
            top: String::new(),
            key: Some("subject_token = 2".to_owned()),
            retry: String::new(),
            emits: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Replaces the rule for the key, for example `header = "customer"`.
    #[must_use]
    pub fn key(mut self, rule: &str) -> Self {
        self.key = Some(rule.to_owned());
        self
    }

    /// Takes the key away: no message waits for another.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.key = None;
        self.subscription("mode = \"shared\"")
    }

    /// Adds lines above the first section.
    #[must_use]
    pub fn top(mut self, lines: &str) -> Self {
        let _ = writeln!(self.top, "{lines}");
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
    pub fn quick_retries(mut self, attempts_max: u32) -> Self {
        let _ = writeln!(self.retry, "attempts_max = {attempts_max}\nfirst_delay_ms = 20\nlongest_delay_ms = 100");
        self
    }

    /// Says what follows the last attempt: `park-key`, `dead-letter` or `halt`.
    #[must_use]
    pub fn on_exhausted(mut self, what: &str) -> Self {
        let _ = writeln!(self.retry, "on_exhausted = \"{what}\"");
        self
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        let quoted = |texts: &[String]| {
            let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
            quoted.join(", ")
        };
        let mut text = format!(
            "component = \"{}\"\n{}\n[subscription]\nstream = \"{}\"\nsubjects = [{}]\n{}\n[grants]\nemit = [{}]\n",
            self.component,
            self.top,
            self.stream,
            quoted(&self.subjects),
            self.subscription,
            quoted(&self.emits)
        );
        let key = self.key.as_deref().map(|rule| ("[key]", rule));
        let retry = Some(("[retry]", self.retry.trim_end())).filter(|(_, lines)| !lines.is_empty());
        let others = self.sections.iter().map(|(header, lines)| (header.as_str(), lines.as_str()));
        for (header, lines) in key.into_iter().chain(retry).chain(others) {
            let _ = write!(text, "\n{header}\n{lines}\n");
        }
        text
    }
}
