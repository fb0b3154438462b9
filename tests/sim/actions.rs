//! The world does what the core asks for, and checks each thing before it does it.

use std::sync::Arc;

use pelton_core::batch::Batch;
use pelton_core::ids::ConsumerId;
use pelton_core::message::DeadLetter;
use pelton_core::parked::{ParkCause, ParkPlace, Parked};
use pelton_core::{Action, Fetch, HaltReason, Run};

use crate::books::{Books, Fate, message_id};
use crate::host::Out;
use crate::violation::{Broken, Checked, holds, there};
use crate::world::{Happening, World};

impl World {
    /// Performs everything that the core asks for now.
    pub(crate) fn act(&mut self) -> Checked {
        loop {
            while let Some(action) = self.host.as_mut().and_then(|host| host.core.poll_action()) {
                self.note(std::mem::discriminant(&action));
                self.perform(action)?;
            }
            if !self.host.as_ref().is_some_and(|host| host.life.drained) {
                return Ok(());
            }
            self.close()?;
        }
    }

    fn known(&self, consumer: ConsumerId) -> Checked<usize> {
        there(self.place(consumer), Broken::Books, || format!("an action for {consumer:?}, which nobody registered"))
    }

    fn books(&mut self, consumer: ConsumerId) -> Checked<&mut Books> {
        let place = self.known(consumer)?;
        Ok(&mut self.ledger.books[place])
    }

    fn perform(&mut self, action: Action) -> Checked {
        match action {
            Action::Position { consumer, generation, after, .. } => {
                let place = self.known(consumer)?;
                self.ledger.books[place].covered(0, after, "a position")?;
                self.subscriptions[place].begin(generation, after);
                self.soon(30, Happening::Positioned(place, generation));
            }
            Action::Pull { consumer, generation, messages } => return self.pull(consumer, generation, messages),
            Action::Execute(run) => return self.begin_run(run),
            Action::Fetch(fetch) => return self.begin_fetch(fetch),
            Action::Commit(batch) => return self.begin_commit(batch),
            Action::Settle { consumer, floor, sequences } => return self.settle(consumer, floor, &sequences),
            Action::Publish { row, event } => return self.send(row, &event),
            Action::Stopped { consumer } => {
                let place = self.known(consumer)?;
                let runs = self.host.as_ref().is_some_and(|host| host.life.runs.values().any(|run| run.place == place));
                holds(!runs, Broken::Books, || format!("{consumer:?} has stopped, and a run of it is out"))?;
                self.subscriptions[place].end();
            }
            Action::Halted { consumer, reason } => return self.halted(consumer, &reason),
            Action::Bound { consumer, stream, after, .. } => return self.bound(consumer, stream.created_ns, after),
            Action::Held { hold, .. } => {
                self.tally.count(if hold.is_some() { "consumer-held" } else { "consumer-goes-on" })
            }
            Action::RollBack { consumer, .. } => {
                return holds(false, Broken::Books, || format!("{consumer:?} has no version on probation"));
            }
            Action::StateEdited { consumer, .. } => {
                holds(false, Broken::Books, || format!("state of {consumer:?} is edited, and nobody asked for it"))?;
            }
            Action::Drained => {
                if let Some(host) = &mut self.host {
                    let idle = host.life.runs.is_empty() && host.life.commit.is_none() && host.life.draining;
                    holds(idle, Broken::Books, || format!("not drained: {:?}", host.life))?;
                    host.life.drained = true;
                }
            }
            Action::DeadLettered { consumer, letter } => return self.dead(consumer, &letter),
            Action::Parked { consumer, row } => return self.parked(consumer, &row),
            Action::Unparked { consumer, place } => return self.unparked(consumer, &place),
            Action::DeadLetterRemoved { consumer, sequence, published_at_ms } => {
                if let Some(host) = &self.host {
                    host.reader.note_dead_letter_removed(consumer, sequence, published_at_ms);
                }
                self.books(consumer)?.now.letters.remove(&(sequence, published_at_ms));
            }
        }
        Ok(())
    }

    /// It begins to read a stream, behind this sequence.
    fn bound(&mut self, consumer: ConsumerId, created_ns: i64, after: u64) -> Checked {
        let books = self.books(consumer)?;
        let incarnation = created_ns as usize - 1;
        for sequence in 1..=after {
            if books.entry((incarnation, sequence))?.now == Fate::Open {
                books.becomes((incarnation, sequence), Fate::NotOurs, false)?;
            }
        }
        Ok(())
    }

    fn pull(&mut self, consumer: ConsumerId, generation: u64, messages: u32) -> Checked {
        let place = self.known(consumer)?;
        let draining = self.host.as_ref().is_some_and(|host| host.life.draining);
        holds(!draining, Broken::Limit, || "a pull while the host drains".into())?;
        let most = self.ledger.books[place].policy.messages_held_max;
        let subscription = &mut self.subscriptions[place];
        if subscription.generation == Some(generation) {
            holds(subscription.positioned, Broken::Books, || "a pull before the position".into())?;
            subscription.credit += messages as usize;
            let credit = subscription.credit;
            holds(credit <= most, Broken::Limit, || format!("{credit} messages are pulled for, {most} may be held"))?;
            self.schedule_delivery(place);
        }
        Ok(())
    }

    fn begin_run(&mut self, run: Run) -> Checked {
        let place = self.known(run.consumer)?;
        let runs_max = if run.ahead { self.plan.short_runs_max } else { self.plan.runs_max };
        let messages_max = self.plan.run_messages_max;
        let policy = &self.ledger.books[place].policy;
        let Some(host) = &mut self.host else { return Ok(()) };
        let first = there(run.jobs.first(), Broken::Books, || "a run of nothing".into())?;
        let out = Out {
            place,
            key: first.message.key.clone(),
            ids: run.jobs.iter().filter(|job| job.message.mark.is_some()).map(|job| job.message.id.clone()).collect(),
        };
        let fits = run.jobs.len() <= messages_max && host.life.runs.len() < runs_max;
        if run.ahead {
            self.tally.count("ahead");
        }
        holds(fits, Broken::Limit, || format!("{} messages in run {}", run.jobs.len(), host.life.runs.len() + 1))?;
        let own: Vec<_> = host.life.runs.values().filter(|other| other.place == place).collect();
        let keys_max = policy.rate.keys_max.unwrap_or(usize::MAX);
        holds(own.len() < keys_max, Broken::Limit, || format!("{} keys at once of {keys_max}", own.len() + 1))?;
        let alone = !policy.shared_state || own.is_empty();
        holds(alone, Broken::KeyOrder, || "two runs of a consumer with shared state".into())?;
        for other in own {
            let (a, b) = (&out.key, &other.key);
            holds(a.is_none() || a != b, Broken::KeyOrder, || format!("two runs of key {a:?}"))?;
            // Not where it is broken on purpose: there the check is whether the outcome shows it.
            let shared = out.ids.iter().find(|id| first.dedup && other.ids.contains(id));
            holds(shared.is_none(), Broken::Twice, || format!("{shared:?} is in two runs"))?;
        }
        let one_key = run.jobs.iter().all(|job| job.message.key == out.key);
        holds(one_key, Broken::KeyOrder, || "a run of several keys".into())?;
        let lane = run.lane;
        let before = host.life.runs.insert(lane, out);
        holds(before.is_none(), Broken::KeyOrder, || "two runs of a lane".into())?;
        host.life.jobs.insert(lane, run);
        self.soon(self.plan.delays.run_ms, Happening::Execute(lane));
        Ok(())
    }

    fn begin_fetch(&mut self, fetch: Fetch) -> Checked {
        self.soon(6, Happening::Read(fetch));
        Ok(())
    }

    fn begin_commit(&mut self, batch: Arc<Batch>) -> Checked {
        self.ledger.outbox.may_give_up(&batch.published)?;
        let Some(host) = &mut self.host else { return Ok(()) };
        let before = host.life.commit.replace(batch);
        holds(before.is_none(), Broken::Books, || "a commit while one is under way".into())?;
        // Now and then the disk is slow.
        let most_ms = if self.chance.one_in(40) { 600 } else { self.plan.delays.commit_ms };
        if most_ms == 600 {
            self.tally.count("slow-commit");
        }
        self.soon(most_ms, Happening::CommitEnds);
        Ok(())
    }

    fn settle(&mut self, consumer: ConsumerId, floor: u64, sequences: &[u64]) -> Checked {
        let place = self.known(consumer)?;
        let books = &self.ledger.books[place];
        books.covered(0, floor, "a settled floor")?;
        if let Some(of_stream) = books.bound.and_then(|bound| books.streams.get(bound)) {
            let early = sequences.iter().find(|sequence| of_stream.unsettled.contains(sequence));
            holds(early.is_none(), Broken::SettledTooEarly, || {
                format!("{}: the broker is told that {early:?} is settled, and it is not durable", books.name)
            })?;
        } else {
            holds(sequences.is_empty(), Broken::SettledTooEarly, || "settled before it is bound".into())?;
        }
        self.acknowledged(place, floor, sequences);
        Ok(())
    }

    fn halted(&mut self, consumer: ConsumerId, reason: &HaltReason) -> Checked {
        let place = self.known(consumer)?;
        self.subscriptions[place].end();
        match reason {
            HaltReason::Exhausted { .. } => {
                self.tally.count("halt");
                if self.chance.one_in(2) {
                    self.soon(400, Happening::Operate(place, pelton_core::Operation::Resume));
                }
            }
            HaltReason::StreamWentBackwards { last_sequence, .. } => {
                let stream = &self.streams[self.ledger.books[place].stream];
                let is_so = stream.backwards.is_some() || stream.incarnations.len() > 1;
                holds(is_so, Broken::Books, || format!("halted at {last_sequence}, and the stream never went back"))?;
            }
        }
        Ok(())
    }

    fn dead(&mut self, consumer: ConsumerId, letter: &Arc<DeadLetter>) -> Checked {
        let message = &letter.message;
        if let Some(host) = &self.host {
            host.reader.note_dead_letter(consumer, message.sequence, letter);
        }
        let books = self.books(consumer)?;
        books.now.lets_go(message);
        books.now.letters.insert((message.sequence, message.published_at_ms), Arc::clone(letter));
        books.becomes(message_id(message), Fate::Dead, false)
    }

    fn parked(&mut self, consumer: ConsumerId, row: &Arc<Parked>) -> Checked {
        if let Some(host) = &self.host {
            host.reader.note_parked(consumer, row);
        }
        self.tally.parked += 1;
        let books = self.books(consumer)?;
        books.now.park(row);
        let aside = row.cause.is_aside() || row.cause == ParkCause::Replayed;
        books.becomes(message_id(&row.message), Fate::Parked, aside)
    }

    fn unparked(&mut self, consumer: ConsumerId, at: &ParkPlace) -> Checked {
        if let Some(host) = &self.host {
            host.reader.note_unparked(consumer, at);
        }
        let books = self.books(consumer)?;
        let name = books.name.clone();
        let row = books.now.unpark(at);
        let row = there(row, Broken::Books, || format!("{name}: {at:?} is not parked any more, and was not"))?;
        let id = message_id(&row.message);
        if books.entry(id)?.now == Fate::Parked {
            books.becomes(id, Fate::Dropped, false)?;
        }
        Ok(())
    }
}
