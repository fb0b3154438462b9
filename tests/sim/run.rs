//! One run of a case, and the search for a smaller case that fails in the same way.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use pelton_core::breaks::Breaks;

use crate::case::Case;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::violation::{Broken, Violation};
use crate::world::World;

/// How a run went.
pub(crate) struct Ended {
    pub(crate) tally: Tally,
    /// The same for two runs of the same case.
    pub(crate) trace: u64,
    pub(crate) violation: Option<Violation>,
}

/// Runs a case to its end, or to the first broken promise.
pub(crate) fn run(case: &Case, breaks: Breaks) -> Ended {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = match World::new(Plan::of(case), breaks) {
            Ok(world) => world,
            Err(violation) => return Ended { tally: Tally::default(), trace: 0, violation: Some(violation) },
        };
        let violation = world.run().err();
        Ended { trace: world.trace(), tally: std::mem::take(&mut world.tally), violation }
    }));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text");
        let violation = Violation { broken: Broken::Panicked, what: format!("panicked: {text}") };
        Ended { tally: Tally::default(), trace: 0, violation: Some(violation) }
    })
}

/// Runs at most this long to find a smaller case.
const SHRINKING: Duration = Duration::from_secs(20);

/// Leaves out messages, consumers and troubles for as long as the same promise is broken.
pub(crate) fn shrink(case: &Case, breaks: Breaks, violation: Violation) -> (Case, Violation) {
    let mut smallest = Smallest { case: case.clone(), violation, breaks, until: Instant::now() + SHRINKING };
    loop {
        let before = smallest.case.clone();
        smallest.fewer_troubles();
        smallest.fewer_consumers();
        smallest.fewer_messages();
        if smallest.case == before || smallest.is_late() {
            return (smallest.case, smallest.violation);
        }
    }
}

struct Smallest {
    case: Case,
    violation: Violation,
    breaks: Breaks,
    until: Instant,
}

impl Smallest {
    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes the case if it fails in the same way.
    fn try_case(&mut self, case: Case) -> bool {
        if self.is_late() {
            return false;
        }
        match run(&case, self.breaks).violation {
            Some(violation) if violation.broken == self.violation.broken => {
                (self.case, self.violation) = (case, violation);
                true
            }
            _ => false,
        }
    }

    fn fewer_messages(&mut self) {
        let planned: u64 = Plan::of(&self.case).streams.iter().map(|stream| stream.messages).sum();
        let mut messages = self.case.messages.unwrap_or(planned);
        let mut step = messages / 2;
        while step > 0 && !self.is_late() {
            let fewer = messages.saturating_sub(step);
            if fewer > 0 && self.try_case(Case { messages: Some(fewer), ..self.case.clone() }) {
                messages = fewer;
                step = step.min(messages / 2);
            } else {
                step /= 2;
            }
        }
    }

    fn fewer_consumers(&mut self) {
        let all = Plan::of(&Case::whole(self.case.seed)).consumers.len();
        for place in 0..all {
            let mut kept = self.case.consumers.clone().unwrap_or_else(|| (0..all).collect());
            if kept.len() > 1 && kept.remove(&place) {
                self.try_case(Case { consumers: Some(kept), ..self.case.clone() });
            }
        }
    }

    fn fewer_troubles(&mut self) {
        let all = Plan::of(&Case::whole(self.case.seed)).troubles.len();
        let mut part = all;
        while part > 0 && !self.is_late() {
            let kept: Vec<usize> = self.case.troubles.clone().map_or_else(|| (0..all).collect(), Vec::from_iter);
            for left_out in kept.chunks(part) {
                let now = self.case.troubles.clone().unwrap_or_else(|| (0..all).collect());
                let fewer: BTreeSet<_> = now.iter().copied().filter(|place| !left_out.contains(place)).collect();
                if fewer.len() < now.len() {
                    self.try_case(Case { troubles: Some(fewer), ..self.case.clone() });
                }
            }
            part /= 2;
        }
    }
}
