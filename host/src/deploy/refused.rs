//! Forms that were refused, so that the same one is not compiled again for every change nearby.

use std::collections::BTreeMap;
use std::time::Duration;

use pelton_core::plan::Form;
use tokio::time::Instant;

/// Pause before a form is tried again that was refused for what may pass; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_LONGEST: Duration = Duration::from_secs(300);

/// Why a form was not taken.
pub(super) struct Refusal {
    pub(super) form: Form,
    pub(super) why: String,
    /// When and after which pause it is tried again; none: the same form would be refused again.
    again: Option<(Instant, Duration)>,
}

/// The last refusal of each consumer.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<String, Refusal>);

impl Refusals {
    /// Notes a refusal. `passing`: the next try may end otherwise. Whether the refusal says something that the one before did not.
    pub(super) fn note(&mut self, name: &str, form: Form, why: &str, passing: bool) -> bool {
        let before = self.0.get(name).filter(|before| before.form == form);
        let pause = before.and_then(|before| before.again).map_or(PAUSE_FIRST, |(_, pause)| pause * 2);
        let pause = pause.min(PAUSE_LONGEST);
        let news = before.is_none_or(|before| before.why != why);
        let again = passing.then(|| (Instant::now() + pause, pause));
        self.0.insert(name.to_owned(), Refusal { form, why: why.to_owned(), again });
        news
    }

    /// The refusal that still holds for this form.
    pub(super) fn holds(&self, name: &str, form: &Form) -> Option<&Refusal> {
        let now = Instant::now();
        self.0.get(name).filter(|refusal| refusal.form == *form && refusal.again.is_none_or(|(at, _)| at > now))
    }

    /// Another try of what may pass is due.
    pub(super) fn try_again(&mut self, name: &str) {
        if self.0.get(name).is_some_and(|refusal| refusal.again.is_some()) {
            self.0.remove(name);
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| known(name));
    }

    /// When the next one is due for another try. What was due before and was not tried waits for a change of its files.
    pub(super) fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        self.0.values().filter_map(|refusal| refusal.again).map(|(at, _)| at).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use pelton_core::ids::Version;

    use super::*;

    fn form(version: u8) -> Form {
        Form { version: Version([version; 32]), reading: 0, rules: 0 }
    }

    #[test]
    fn a_lasting_refusal_holds_for_its_form_only() {
        let mut refusals = Refusals::default();
        assert!(refusals.note("a", form(1), "broken", false));
        assert!(!refusals.note("a", form(1), "broken", false), "no news");
        assert!(refusals.holds("a", &form(1)).is_some() && refusals.holds("a", &form(2)).is_none());
        assert_eq!(refusals.next(), None);
    }

    #[tokio::test]
    async fn a_passing_refusal_is_due_again_later_and_later() {
        let mut refusals = Refusals::default();
        refusals.note("a", form(1), "busy", true);
        let first = refusals.next().unwrap();
        refusals.note("a", form(1), "busy", true);
        assert!(refusals.next().unwrap() > first + PAUSE_FIRST / 2);
        refusals.keep(|name| name != "a");
        assert_eq!(refusals.next(), None);
    }
}
