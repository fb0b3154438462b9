//! The deployment plan: what to do so that what runs becomes what is wanted. Start-up is the plan from nothing.

use std::collections::BTreeMap;

use crate::ids::Version;

/// What decides how a consumer can be brought from one form to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The version of its plug-in.
    pub version: Version,
    /// A digest of what it reads and how messages are told apart: a change needs a new subscription.
    pub reading: u64,
    /// A digest of everything else in its manifest: a change applies from the next message on.
    pub rules: u64,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin.
    Start,
    /// Stop, then begin in the new form, going on at the cursor.
    Restart,
    /// Replace the plug-in between two messages; other rules change with it.
    Swap,
    /// Apply new rules between two messages.
    Change,
    /// End what is under way and stop. Its state and its cursor stay.
    Stop,
}

/// What to do for each consumer, by name; those for which there is nothing to do are left out.
#[must_use]
pub fn plan<'a>(running: &BTreeMap<&'a str, Form>, wanted: &BTreeMap<&'a str, Form>) -> Vec<(&'a str, Step)> {
    let stops = running.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (*name, Step::Stop));
    let others = wanted.iter().filter_map(|(name, wanted)| {
        let step = match running.get(name) {
            None => Step::Start,
            Some(running) if running.reading != wanted.reading => Step::Restart,
            Some(running) if running.version != wanted.version => Step::Swap,
            Some(running) if running.rules != wanted.rules => Step::Change,
            Some(_) => return None,
        };
        Some((*name, step))
    });
    stops.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(version: u8, reading: u64, rules: u64) -> Form {
        Form { version: Version([version; 32]), reading, rules }
    }

    #[test]
    fn the_least_disturbance_is_chosen() {
        let running = BTreeMap::from([
            ("gone", form(1, 1, 1)),
            ("new-key", form(1, 1, 1)),
            ("new-bytes", form(1, 1, 1)),
            ("new-retry", form(1, 1, 1)),
            ("same", form(1, 1, 1)),
        ]);
        let wanted = BTreeMap::from([
            ("new-key", form(2, 2, 2)),
            ("new-bytes", form(2, 1, 2)),
            ("new-retry", form(1, 1, 2)),
            ("same", form(1, 1, 1)),
            ("added", form(1, 1, 1)),
        ]);
        let mut steps = plan(&running, &wanted);
        steps.sort_by_key(|(name, _)| *name);
        assert_eq!(
            steps,
            [
                ("added", Step::Start),
                ("gone", Step::Stop),
                ("new-bytes", Step::Swap),
                ("new-key", Step::Restart),
                ("new-retry", Step::Change),
            ]
        );
    }

    #[test]
    fn start_up_is_the_plan_from_nothing() {
        let wanted = BTreeMap::from([("a", form(1, 1, 1))]);
        assert_eq!(plan(&BTreeMap::new(), &wanted), [("a", Step::Start)]);
        assert_eq!(plan(&wanted, &wanted), []);
    }
}
