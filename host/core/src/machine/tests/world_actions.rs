//! The world does what the core asks for, and checks each thing before it does it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::durable::name_of;
use super::violation::{Broken, Checked, holds};
use super::world::{Happening, World};
use crate::batch::HoldBy;
use crate::effects::WriteSet;
use crate::ids::{ConsumerId, Version};
use crate::machine::breaker::is_not_the_messages;
use crate::machine::{Action, HaltReason, Input, Job, JobResult, LaneId, Run, Turn, VersionRule};
use crate::message::{DeadLetter, Failure, GivenUp, Message};
use crate::parked::{ParkCause, ParkLane, ParkPlace, Parked};
use crate::policy::{OnExhausted, OnGap};

pub(super) const VERSION: Version = Version([7; 32]);

impl World {
    /// Performs everything that the core asks for now.
    pub(super) fn act(&mut self) -> Checked {
        while let Some(action) = self.core.poll_action() {
            self.perform(action)?;
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Checked {
        self.trace(&action);
        match action {
            Action::Position { consumer, generation, after, .. } => {
                self.durable.covered(&self.broker, consumer, after, "the position")?;
                let subscription = self.broker.subscription(consumer);
                subscription.generation = Some(generation);
                (subscription.position, subscription.credit) = (after, 0);
                (subscription.positioned, subscription.scheduled) = (false, false);
                self.soon(30, Happening::Positioned(consumer, generation));
            }
            Action::Pull { consumer, generation, messages } => {
                holds(!self.life.overlay_full, Broken::Limit, || "a pull while the overlay is full".into())?;
                holds(!self.life.draining, Broken::Limit, || "a pull while the host drains".into())?;
                holds(!self.paused.contains(&consumer), Broken::Held, || format!("{consumer:?} is paused, and pulls"))?;
                let subscription = self.broker.subscription(consumer);
                if subscription.generation == Some(generation) {
                    holds(subscription.positioned, Broken::Books, || "a pull before the position".into())?;
                    subscription.credit += messages as usize;
                    self.schedule_delivery(consumer);
                }
            }
            Action::Execute(run) => self.execute(run)?,
            Action::Commit(batch) => {
                let early = batch.published.iter().find(|row| !self.life.acknowledged.contains(row));
                holds(early.is_none(), Broken::RowRemoved, || format!("{early:?} is removed, and not acknowledged"))?;
                let before = self.life.commit.replace(batch);
                holds(before.is_none(), Broken::Books, || "a commit while one is under way".into())?;
                self.soon(30, Happening::CommitEnds);
            }
            Action::Settle { consumer, floor, sequences } => self.settle(consumer, floor, &sequences)?,
            Action::Publish { row, event } => self.leave(row, &event)?,
            Action::Stopped { consumer } => self.stopped(consumer)?,
            Action::Halted { consumer, reason } => self.halted(consumer, &reason)?,
            Action::Bound { .. } => {}
            Action::Drained => {
                let life = &self.life;
                let idle = life.runs.is_empty() && life.commit.is_none() && life.in_flight.is_empty();
                holds(idle && life.draining, Broken::Books, || format!("not drained: {life:?}"))?;
                self.life.drained = true;
            }
            Action::Fetch(fetch) => self.soon(20, Happening::Fetched(fetch)),
            Action::Parked { consumer, row } => self.parked(consumer, row),
            Action::Unparked { consumer, place } => {
                let row = self.life.parked.remove(&(consumer, place));
                holds(row.is_some(), Broken::Twice, || "a message is released twice".into())?;
                self.waited_for(consumer, row.as_deref());
                self.saw("parked no more");
            }
            Action::DeadLettered { consumer, letter } => self.dead_lettered(consumer, letter)?,
            Action::DeadLetterRemoved { consumer, sequence, published_at_ms } => {
                let letter = self.life.dead.remove(&(consumer, published_at_ms as i64, sequence));
                holds(letter.is_some(), Broken::Books, || format!("{sequence} of {consumer:?} is no dead letter"))?;
            }
            Action::RollBack { consumer, version, .. } => self.rolled_back(consumer, version)?,
            Action::StateEdited { consumer, .. } => {
                holds(false, Broken::Books, || format!("state of {consumer:?} is edited, and nobody asked for it"))?;
            }
            Action::Held { consumer, by, hold } => {
                self.saw(match (by, &hold) {
                    (HoldBy::Operator, _) => "paused or resumed",
                    (HoldBy::Breaker, Some(_)) => "breaker opens",
                    (HoldBy::Breaker, None) => "breaker closes",
                });
                let known = &self.core.consumers[&consumer].holds;
                holds(known.get(&by) == hold.as_ref(), Broken::Held, || format!("{consumer:?}: {by:?} {hold:?}"))?;
            }
        }
        Ok(())
    }

    fn rolled_back(&mut self, consumer: ConsumerId, version: Version) -> Checked {
        holds(version == VERSION, Broken::Books, || format!("{version:?} was never on probation"))?;
        self.saw("rolled back");
        self.core.handle(self.now(), Input::Swapped { consumer });
        Ok(())
    }

    fn parked(&mut self, consumer: ConsumerId, row: Arc<Parked>) {
        self.saw(row.cause.kind());
        self.life.applied.note_parked(consumer, &row);
        let before = self.life.parked.insert((consumer, row.place()), row);
        self.waited_for(consumer, before.as_deref());
    }

    /// A parked row went, or was replaced: if it had waited until its deadline, nobody has to wait for its version any longer.
    fn waited_for(&mut self, consumer: ConsumerId, row: Option<&Parked>) {
        let now_ms = self.now().wall_ms;
        let is_over = |row: &&Parked| row.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        if let Some(row) = row.filter(|row| matches!(row.cause, ParkCause::Gap { .. })).filter(is_over) {
            let ParkPlace { lane, order, .. } = row.place();
            let waited = self.life.waited.entry((consumer, lane)).or_default();
            *waited = order.max(*waited);
        }
    }

    fn dead_lettered(&mut self, consumer: ConsumerId, letter: Arc<DeadLetter>) -> Checked {
        let name = name_of(consumer, &letter.message);
        self.saw(match letter.cause {
            GivenUp::Exhausted => "given up: exhausted",
            _ => letter.cause.kind(),
        });
        let policy = &self.policies[&consumer];
        let last = letter.history.last().map(|last| &last.failure);
        let spared = self.core.consumers[&consumer].breaker.is_open() && last.is_some_and(is_not_the_messages);
        holds(!spared || letter.cause != GivenUp::Exhausted, Broken::Held, || format!("{name:?} was to be spared"))?;
        let allowed = match letter.cause {
            GivenUp::Unreadable(_) | GivenUp::Rejected | GivenUp::ParkedTooLong => true,
            GivenUp::Exhausted => policy.on_exhausted == OnExhausted::DeadLetter,
            GivenUp::GapNeverFilled => policy.versions.is_some_and(|policy| policy.on_gap == OnGap::DeadLetter),
        };
        holds(allowed, Broken::Lost, || format!("{name:?} is given up: {letter:?}"))?;
        let tally = self.life.books.entry(consumer).or_default();
        tally.dead_letters += 1;
        tally.outbox_rows += usize::from(policy.dead_letter_subject.is_some());
        self.life.finished.insert(name);
        self.life.dead.insert(name, letter);
        Ok(())
    }

    fn execute(&mut self, run: Run) -> Checked {
        let consumer = run.consumer;
        let fits = (1..=self.settings.run_messages_max).contains(&run.jobs.len());
        let (out, runs_max) = (self.life.runs.len(), self.settings.runs_max);
        let has_place = if run.ahead { out < self.settings.short_runs_max } else { out < runs_max };
        holds(fits && has_place, Broken::Limit, || format!("{out} of {runs_max} are out: {run:?}"))?;
        if run.ahead {
            self.saw("ahead");
        }
        holds(!self.life.draining, Broken::Limit, || "a run while the host drains".into())?;
        let alone = !self.policies[&consumer].shared_state || self.life.runs.values().all(|r| r.consumer != consumer);
        holds(alone, Broken::KeyOrder, || "two runs of a consumer with shared state".into())?;
        let marks = |run: &Run| run.jobs.iter().filter_map(|job| job.message.mark).collect::<BTreeSet<_>>();
        let own = marks(&run);
        for other in self.life.runs.values().filter(|other| other.consumer == consumer) {
            let (a, b) = (&run.jobs[0].message.key, &other.jobs[0].message.key);
            holds(a.is_none() || a != b, Broken::KeyOrder, || format!("two runs of key {a:?}"))?;
            holds(own.is_disjoint(&marks(other)), Broken::Twice, || "an id is in two runs".into())?;
        }
        let policy = &self.policies[&consumer];
        holds(!self.paused.contains(&consumer), Broken::Held, || format!("{consumer:?} is paused, and runs"))?;
        let keys = self.life.runs.values().filter(|run| run.consumer == consumer).count();
        holds(policy.rate.keys_max.is_none_or(|most| keys < most), Broken::Limit, || format!("{keys} keys"))?;
        let begun = self.life.begun.entry(consumer).or_default();
        *begun += run.jobs.len() as u64;
        if let Some(rate) = policy.rate.per_second.map(u64::from) {
            let most = rate * (self.tick_ms - self.life.began_ms) / 1_000 + (rate / 10).max(1);
            // The core's clock of a new life begins with all that may begin at once.
            holds(*begun <= most + 1, Broken::Limit, || format!("{begun} of {most} attempts"))?;
        }
        for job in &run.jobs {
            let name = name_of(consumer, &job.message);
            let finished = self.life.finished.contains(&name);
            holds(!finished, Broken::Twice, || format!("{name:?} is executed again"))?;
            let runs_already = |run: &Run| run.jobs.iter().any(|job| name_of(run.consumer, &job.message) == name);
            let twice = self.life.runs.values().any(runs_already);
            holds(!twice, Broken::Twice, || format!("{name:?} is in two runs"))?;
            holds(job.message.key == run.jobs[0].message.key, Broken::KeyOrder, || "a run of several keys".into())?;
        }
        let lane = run.lane;
        let before = self.life.runs.insert(lane, run);
        holds(before.is_none(), Broken::KeyOrder, || "two runs of a lane".into())?;
        self.soon(25, Happening::RunEnds(lane));
        Ok(())
    }

    /// A run ends: some of its messages were handled, or all.
    pub(super) fn run_ends(&mut self, lane: LaneId) -> Checked {
        let Run { consumer, jobs, .. } = self.life.runs.remove(&lane).expect("it was out");
        let cut = if self.chance.one_in(5) { self.chance.below(jobs.len() as u64) as usize } else { jobs.len() };
        let mut results = Vec::new();
        for job in jobs.iter().take(cut) {
            let result = self.handle_message(consumer, job)?;
            let failed = matches!(result, JobResult::Failed { .. });
            results.push(result);
            if failed {
                break;
            }
        }
        // In every other world runs are short.
        let busy_us = self.chance.below(if self.settings.jitter_seed.is_multiple_of(2) { 100 } else { 25_000 });
        self.tell(Input::RunEnded { consumer, lane, results, busy_us });
        Ok(())
    }

    fn handle_message(&mut self, consumer: ConsumerId, job: &Job) -> Checked<JobResult> {
        let message = &job.message;
        let name = name_of(consumer, message);
        let mark = message.mark.map(|mark| (consumer, mark));
        if job.dedup && mark.is_some_and(|mark| self.life.marks.contains(&mark)) {
            self.life.books.entry(consumer).or_default().duplicates += 1;
            self.life.finished.insert(name);
            return Ok(JobResult::Duplicate);
        }
        if let Some(early) = self.judge_version(consumer, job)? {
            return Ok(early);
        }
        if let Some(failure) = self.failure(consumer, message) {
            self.life.books.entry(consumer).or_default().failed += 1;
            return Ok(JobResult::Failed { version: VERSION, failure });
        }
        self.life.finished.insert(name);
        self.life.applied.add(consumer, message)?;
        self.life.marks.extend(mark);
        let events: Vec<_> = (0..self.chance.below(4)).map(|place| self.event(consumer, message, place)).collect();
        let tally = self.life.books.entry(consumer).or_default();
        tally.applied += 1;
        tally.outbox_rows += events.len();
        Ok(JobResult::Applied { version: VERSION, writes: WriteSet { state: Vec::new(), events } })
    }

    /// What an executor says by the message's version alone. A gap may only be passed when somebody has waited for it long enough, or an
    /// operator wants it.
    fn judge_version(&mut self, consumer: ConsumerId, job: &Job) -> Checked<Option<JobResult>> {
        let (Some(rule), Some(version)) = (job.versions, job.message.entity_version) else { return Ok(None) };
        let key = job.message.key.clone().expect("only keyed messages have versions");
        let known = self.life.applied.versions.get(&(consumer, Arc::clone(&key))).copied();
        let strict = VersionRule { gap_allowed: false, ..rule };
        match strict.judge(version, known) {
            Turn::Now => Ok(None),
            Turn::Stale => {
                self.saw("stale");
                self.life.finished.insert(name_of(consumer, &job.message));
                Ok(Some(JobResult::Stale))
            }
            Turn::Gap { expected } if !rule.gap_allowed => Ok(Some(JobResult::Gap { expected })),
            Turn::Gap { expected } => {
                let lane = ParkLane::Key(key);
                let now_ms = self.now().wall_ms;
                let overdue = self.life.parked.iter().any(|((of, place), row)| {
                    *of == consumer && place.lane == lane && row.until_ms.is_some_and(|until| until <= now_ms)
                });
                let waited = self.life.waited.get(&(consumer, lane.clone())).is_some_and(|waited| version <= *waited);
                // It had its turn once, and came back.
                let name = name_of(consumer, &job.message);
                let own = |row: &Parked, of| name_of(of, &row.message) == name && row.attempts > 0;
                let tried = self.life.parked.iter().any(|((of, _), row)| own(row, *of));
                let wanted = overdue || waited || tried || self.life.forced.contains(&(consumer, lane.clone()));
                self.saw(if overdue { "gap passed: overdue" } else { "gap passed: operator" });
                holds(wanted, Broken::Lost, || {
                    format!("{:?}: version {version} instead of {expected}", name_of(consumer, &job.message))
                })?;
                Ok(None)
            }
        }
    }

    /// Whether and how an attempt fails.
    fn failure(&mut self, consumer: ConsumerId, message: &Message) -> Option<Failure> {
        if self.calm {
            return None;
        }
        let reason = "by chance".into();
        if self.sick.contains(&consumer) {
            return Some(Failure::Retry { reason, after_ms: None });
        }
        // Some never succeed while there is trouble.
        let poisoned = message.sequence.is_multiple_of(13);
        if !poisoned && !self.chance.one_in(6) {
            return None;
        }
        let after_ms = self.chance.one_in(2).then(|| self.chance.below(100));
        Some(match self.chance.below(7) {
            0 => Failure::Reject { reason },
            1 => Failure::Trap { reason },
            2 => Failure::Timeout { limit_ms: 10 },
            3 => Failure::Limit { reason },
            4 => Failure::Park { reason, after_ms },
            _ => Failure::Retry { reason, after_ms },
        })
    }

    fn stopped(&mut self, consumer: ConsumerId) -> Checked {
        let runs = self.life.runs.values().any(|run| run.consumer == consumer);
        let commits = self.life.commit.iter().flat_map(|batch| &batch.settlements).any(|s| s.consumer == consumer);
        holds(!runs && !commits, Broken::Books, || format!("{consumer:?} has stopped and something is under way"))?;
        self.broker.subscription(consumer).end();
        Ok(())
    }

    fn halted(&mut self, consumer: ConsumerId, reason: &HaltReason) -> Checked {
        let asked = self.policies[&consumer].on_exhausted == OnExhausted::Halt;
        let exhausted = matches!(reason, HaltReason::Exhausted { .. });
        holds(asked && exhausted, Broken::Stuck, || format!("{consumer:?} is halted: {reason:?}"))?;
        self.broker.subscription(consumer).end();
        self.saw("halted");
        self.soon(100, Happening::Resume(consumer));
        Ok(())
    }
}
