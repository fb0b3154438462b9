//! One round of deployment: for whom it is, whether anything is done, and what became of each step.

use std::collections::{BTreeMap, BTreeSet};

use pelton_core::ids::Version;
use pelton_core::plan::Step;

use super::look::Look;
use super::request::{Deploy, Outcome, Report, Verdict};

/// A round.
pub(super) struct Round {
    asked: Option<Deploy>,
    complete: bool,
    problems: Vec<String>,
    outcomes: BTreeMap<String, Outcome>,
}

impl Round {
    /// A round that was asked for, or one of the deployer's own.
    pub(super) fn new(asked: Option<Deploy>) -> Self {
        Self { asked, complete: false, problems: Vec::new(), outcomes: BTreeMap::new() }
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_plan(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.plan)
    }

    /// Whether somebody waits for the answer.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether it is for this consumer.
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.asked.as_ref().is_none_or(|asked| asked.only.is_empty() || asked.only.iter().any(|only| only == name))
    }

    /// Notes what a look found.
    pub(super) fn saw(&mut self, look: &Look) {
        self.complete = look.complete;
        self.problems.clone_from(&look.problems);
        for (name, why) in &look.unusable {
            self.note(name, None, None, None, Verdict::Refused, Some(why.clone()));
        }
    }

    /// Notes what became of a consumer's step. What it was refused or held back for is not covered by what follows from that.
    pub(super) fn note(
        &mut self,
        name: &str,
        step: Option<Step>,
        from: Option<Version>,
        to: Option<Version>,
        result: Verdict,
        reason: Option<String>,
    ) {
        if !self.is_asked() || !self.is_about(name) {
            return;
        }
        let outcome = Outcome { consumer: name.to_owned(), step: step.map(word), from, to, result, reason };
        self.outcomes.entry(name.to_owned()).or_insert(outcome);
    }

    /// Notes those of these consumers for which there is nothing to do, and those that were asked for and are none.
    pub(super) fn nothing_for<'a>(
        &mut self,
        known: impl Iterator<Item = &'a String>,
        steps: &[(String, Step)],
        version: impl Fn(&str) -> Option<Version>,
    ) {
        let known: BTreeSet<&String> = known.collect();
        for name in &known {
            if steps.iter().all(|(other, _)| other != *name) {
                let version = version(name);
                self.note(name, None, version, version, Verdict::Unchanged, None);
            }
        }
        let only = self.asked.as_ref().map(|asked| asked.only.clone()).unwrap_or_default();
        for name in only.iter().filter(|name| !known.contains(name)) {
            let reason = format!(
                "there is neither a manifest {name}.toml in the consumer directory nor a consumer {name:?} that runs"
            );
            self.note(name, None, None, None, Verdict::Refused, Some(reason));
        }
    }

    /// Tells whoever asked.
    pub(super) fn answer(self) {
        let Self { asked, complete, problems, outcomes } = self;
        if let Some(asked) = asked {
            // Who no longer waits for the answer finds it in the log.
            _ = asked.answer.send(Report { complete, problems, outcomes: outcomes.into_values().collect() });
        }
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Start => "start",
        Step::Restart => "restart",
        Step::Swap => "swap",
        Step::Change => "change",
        Step::Stop => "stop",
    }
}
