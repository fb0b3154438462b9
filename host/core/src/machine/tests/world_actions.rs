//! The world does what the core asks for, and checks each thing before it does it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::violation::{Broken, Checked, holds};
use super::world::{Happening, World};
use crate::effects::{Event, WriteSet};
use crate::ids::{ConsumerId, RowId, Version};
use crate::machine::{Action, Input, Job, JobResult, LaneId, Run};
use crate::message::{Failure, GivenUp, Message};

const VERSION: Version = Version([7; 32]);

impl World {
    /// Performs everything that the core asks for now.
    pub(super) fn act(&mut self) -> Checked {
        while let Some(action) = self.core.poll_action() {
            self.perform(action)?;
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Checked {
        match action {
            Action::Position { consumer, generation, after } => {
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
            Action::Halted { .. } => holds(false, Broken::Stuck, || format!("halted: {action:?}"))?,
            Action::Bound { .. } => {}
            Action::Drained => {
                let life = &self.life;
                let idle = life.runs.is_empty() && life.commit.is_none() && life.in_flight.is_empty();
                holds(idle && life.draining, Broken::Books, || format!("not drained: {life:?}"))?;
                self.life.drained = true;
            }
            Action::DeadLettered { consumer, letter } => {
                let message = &letter.message;
                self.life.finished.insert((consumer, message.published_at_ms as i64, message.sequence));
                let tally = self.life.books.entry(consumer).or_default();
                match letter.cause {
                    GivenUp::Unreadable(_) => tally.unreadable += 1,
                    _ => tally.given_up += 1,
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, run: Run) -> Checked {
        let consumer = run.consumer;
        let fits = (1..=self.settings.run_messages_max).contains(&run.jobs.len());
        holds(fits && self.life.runs.len() < self.settings.runs_max, Broken::Limit, || format!("{run:?}"))?;
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
        for job in &run.jobs {
            let Message { sequence, published_at_ms, key, .. } = job.message.as_ref();
            let finished = self.life.finished.contains(&(consumer, *published_at_ms as i64, *sequence));
            holds(!finished, Broken::Twice, || format!("{consumer:?} executes {sequence} again"))?;
            holds(*key == run.jobs[0].message.key, Broken::KeyOrder, || "a run of several keys".into())?;
        }
        let rising = run.jobs.windows(2).all(|pair| pair[0].message.sequence < pair[1].message.sequence);
        holds(rising, Broken::KeyOrder, || format!("{run:?}"))?;
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
        self.tell(Input::RunEnded { consumer, lane, results });
        Ok(())
    }

    fn handle_message(&mut self, consumer: ConsumerId, job: &Job) -> Checked<JobResult> {
        let message = &job.message;
        let created = message.published_at_ms as i64;
        let tally = self.life.books.entry(consumer).or_default();
        let mark = message.mark.map(|mark| (consumer, mark));
        if job.dedup && mark.is_some_and(|mark| self.life.marks.contains(&mark)) {
            tally.duplicates += 1;
            self.life.finished.insert((consumer, created, message.sequence));
            return Ok(JobResult::Duplicate);
        }
        let trouble = !self.calm && self.chance.one_in(6);
        if trouble {
            tally.failed += 1;
            return Ok(JobResult::Failed { version: VERSION, failure: self.failure() });
        }
        self.life.finished.insert((consumer, created, message.sequence));
        if let Some(key) = message.key.clone() {
            let last = self.life.last_of_key.insert((consumer, created, key), message.sequence).unwrap_or(0);
            holds(last < message.sequence, Broken::KeyOrder, || {
                format!("{consumer:?} applies {} after {last}", message.sequence)
            })?;
        }
        self.life.marks.extend(mark);
        let events: Vec<_> = (0..self.chance.below(4)).map(|place| self.event(consumer, message, place)).collect();
        let tally = self.life.books.entry(consumer).or_default();
        tally.applied += 1;
        tally.outbox_rows += events.len();
        Ok(JobResult::Applied { version: VERSION, writes: WriteSet { state: Vec::new(), events } })
    }

    fn failure(&mut self) -> Failure {
        let after_ms = self.chance.one_in(2).then(|| self.chance.below(100));
        let reason = "by chance".into();
        match self.chance.below(6) {
            0 => Failure::Reject { reason },
            1 => Failure::Trap { reason },
            2 => Failure::Timeout { limit_ms: 10 },
            3 => Failure::Park { reason, after_ms },
            _ => Failure::Retry { reason, after_ms },
        }
    }

    fn event(&mut self, consumer: ConsumerId, message: &Message, place: u64) -> Arc<Event> {
        let key = match self.chance.below(4) {
            0 => None,
            1 => Some(Arc::from("shared")),
            _ => message.key.clone(),
        };
        Arc::new(Event {
            id: format!("{}:{}:{}:{place}", consumer.0, message.published_at_ms, message.sequence).into(),
            subject: "out".into(),
            key,
            headers: Vec::new(),
            payload: Bytes::new(),
        })
    }

    fn settle(&self, consumer: ConsumerId, floor: u64, sequences: &[u64]) -> Checked {
        self.durable.covered(&self.broker, consumer, floor, "a settled floor")?;
        let created = self.durable.consumers.get(&consumer).map_or(0, |known| known.stream.created_ns);
        sequences.iter().try_for_each(|sequence| {
            let durable = self.durable.settled.contains(&(consumer, created, *sequence));
            holds(durable, Broken::SettledTooEarly, || format!("{consumer:?}: {sequence} is told, but not durable"))
        })
    }

    /// An event leaves: it must be durable, and its key's turn.
    fn leave(&mut self, row: RowId, event: &Event) -> Checked {
        let Some((consumer, stored)) = self.durable.outbox.get(&row) else {
            return holds(false, Broken::Publish, || format!("{row:?} leaves and is not durable"));
        };
        holds(**stored == *event, Broken::Publish, || format!("{row:?} is another event"))?;
        let life = &mut self.life;
        if let Some(key) = &event.key {
            let of_key = |(other, (of, event)): &(&RowId, &(ConsumerId, Arc<Event>))| {
                *other < &row && of == consumer && event.key.as_ref() == Some(key)
            };
            for (lower, _) in self.durable.outbox.iter().filter(of_key) {
                let gone = life.in_flight.contains(lower) || life.acknowledged.contains(lower);
                holds(gone, Broken::Publish, || format!("{row:?} leaves before {lower:?}"))?;
            }
            if life.refused.contains(&row) {
                let with_key = |other: &RowId| {
                    self.durable.outbox.get(other).is_some_and(|o| o.1.key.as_ref() == Some(key) && o.0 == *consumer)
                };
                let above = life.in_flight.iter().find(|other| **other > row && with_key(other));
                holds(above.is_none(), Broken::Publish, || format!("{row:?} is tried again behind {above:?}"))?;
            }
        }
        holds(life.in_flight.insert(row), Broken::Publish, || format!("{row:?} is in flight twice"))?;
        let most = self.settings.relay_in_flight_max;
        holds(life.in_flight.len() <= most, Broken::Limit, || format!("{} in flight", life.in_flight.len()))?;
        self.soon(30, Happening::Answer(row));
        Ok(())
    }

    /// JetStream takes the event, refuses it, or its answer is lost on the way.
    pub(super) fn answer(&mut self, row: RowId) {
        self.life.in_flight.remove(&row);
        let stored = self.calm || !self.chance.one_in(6);
        if stored {
            self.broker.events.insert(row);
        }
        if stored && (self.calm || !self.chance.one_in(8)) {
            self.life.refused.remove(&row);
            self.life.acknowledged.insert(row);
            if let Some((consumer, _)) = self.durable.outbox.get(&row) {
                let tally = self.life.books.entry(*consumer).or_default();
                tally.published += 1;
                tally.outbox_rows -= 1;
            }
            let twice = self.chance.one_in(10);
            self.tell(Input::Acknowledged(if twice { vec![row, row] } else { vec![row] }));
        } else {
            self.life.refused.insert(row);
            self.tell(Input::Refused(row));
        }
    }

    fn stopped(&mut self, consumer: ConsumerId) -> Checked {
        let runs = self.life.runs.values().any(|run| run.consumer == consumer);
        let commits = self.life.commit.iter().flat_map(|batch| &batch.settlements).any(|s| s.consumer == consumer);
        holds(!runs && !commits, Broken::Books, || format!("{consumer:?} has stopped and something is under way"))?;
        let subscription = self.broker.subscription(consumer);
        subscription.generation = None;
        subscription.credit = 0;
        Ok(())
    }
}
