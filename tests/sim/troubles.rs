//! Troubles as they happen, and the calm after them.

use pelton_core::Input;

use crate::chance::Chance;
use crate::plan;
use crate::trouble::{End, Planned, Trouble};
use crate::violation::Checked;
use crate::world::{Happening, World};

impl World {
    /// Something goes wrong, or an operator does something.
    pub(crate) fn trouble(&mut self, planned: Planned) -> Checked {
        let Planned { consumer: place, stream, trouble, .. } = planned;
        if self.calm {
            return Ok(());
        }
        self.tally.count(trouble.name());
        match trouble {
            Trouble::Ends(end) if self.host.is_some() => return self.end_now(end),
            Trouble::EndsAt(end, operations) => self.disks.end_after(end, operations),
            Trouble::DiskFull(for_ms) => {
                self.disks.fill();
                self.later(for_ms, Happening::DiskHasRoom);
            }
            Trouble::Drain => return self.drain(),
            Trouble::StopStart => return self.stop_start(place),
            Trouble::Change => return self.change(place),
            Trouble::Lost => {
                if let Some(consumer) = self.id(place) {
                    self.lose(place, consumer);
                }
            }
            Trouble::ConnectionLost => return self.connection_lost(),
            Trouble::Backwards => return self.go_backwards(stream),
            Trouble::Replaced => return self.replace(stream),
            Trouble::ClockJump(by_ms) => self.wall_offset_ms = (self.wall_offset_ms + by_ms).clamp(-20_000, 20_000),
            Trouble::Swap => return self.swap(place),
            Trouble::Outage(for_ms) => self.outages_until_ms[place] = self.tick_ms + for_ms,
            Trouble::OutputRefuses(for_ms) => {
                self.wire.refuses = true;
                self.later(for_ms, Happening::OutputTakes);
            }
            Trouble::Checkpoint => self.soon(5, Happening::Checkpoint),
            Trouble::Ends(_) => {}
            Trouble::Pause
            | Trouble::Resume
            | Trouble::Release
            | Trouble::ReleaseAll
            | Trouble::DropParked
            | Trouble::EditParked
            | Trouble::Replay
            | Trouble::DropDeadLetter => return self.wish(place, trouble),
        }
        Ok(())
    }

    /// The host dies, at a moment of its choice: before its commit or checkpoint, after it, or in the middle.
    fn end_now(&mut self, end: End) -> Checked {
        if self.chance.one_in(2) {
            let operations = self.chance.between(1, 12);
            self.disks.end_after(end, operations);
            if self.chance.one_in(3) {
                self.checkpoint()?;
            } else {
                self.commit_ends()?;
            }
            if self.host.is_none() {
                return Ok(());
            }
        }
        self.die(end)
    }

    fn drain(&mut self) -> Checked {
        let Some(host) = &mut self.host else { return Ok(()) };
        if std::mem::replace(&mut host.life.draining, true) {
            return Ok(());
        }
        self.tell(Input::Drain)
    }

    fn stop_start(&mut self, place: usize) -> Checked {
        let Some(consumer) = self.id(place).filter(|_| self.plan.takes_part(place)) else { return Ok(()) };
        self.soon(150, Happening::Start(place));
        self.tell(Input::Stop { consumer })
    }

    /// Other policies, but for those that decide what is in the store.
    fn change(&mut self, place: usize) -> Checked {
        let Some(consumer) = self.id(place) else { return Ok(()) };
        let books = &mut self.ledger.books[place];
        let before = books.policy.clone();
        let mut chance = Chance::new(self.chance.next());
        let mut policy = plan::policy(&mut chance, books.keyed);
        policy.versions = before.versions;
        policy.shared_state = before.shared_state;
        policy.dead_letter_subject = before.dead_letter_subject;
        // What was asked for under a wider policy may still be on its way.
        policy.messages_held_max = before.messages_held_max;
        policy.rate.keys_max = before.rate.keys_max;
        books.change(policy.clone());
        self.tell(Input::Change { consumer, policy: Box::new(policy) })
    }

    fn connection_lost(&mut self) -> Checked {
        if self.host.is_none() {
            return Ok(());
        }
        for place in 0..self.subscriptions.len() {
            if let Some(consumer) = self.id(place) {
                self.lose(place, consumer);
            }
        }
        self.cut_wire(true)
    }

    /// The broker restarts from an older state of a stream.
    fn go_backwards(&mut self, number: usize) -> Checked {
        let chance = &mut self.chance;
        let stream = &mut self.streams[number];
        if stream.backwards.is_some() {
            return Ok(());
        }
        let all = stream.now().messages.len() as u64;
        let lost = chance.between(1, 40).min(all);
        stream.backwards = Some(all - lost);
        let for_ms = self.chance.between(200, 2_000);
        self.later(for_ms, Happening::Heal(number));
        self.lose_readers_of(number);
        Ok(())
    }

    /// The stream is deleted and made anew.
    fn replace(&mut self, number: usize) -> Checked {
        self.streams[number].make_anew(number);
        self.lose_readers_of(number);
        Ok(())
    }

    fn lose_readers_of(&mut self, number: usize) {
        for place in 0..self.subscriptions.len() {
            if self.ledger.books[place].stream != number {
                continue;
            }
            // What was on the way is of a stream that is gone, or shorter now: none of it comes late.
            self.subscriptions[place].credit = 0;
            if let Some(consumer) = self.id(place) {
                self.lose(place, consumer);
            }
        }
    }

    /// The stream has all its messages again; operators let go on who stopped for it.
    pub(crate) fn heal(&mut self, number: usize) {
        self.streams[number].backwards = None;
        for place in 0..self.subscriptions.len() {
            if self.ledger.books[place].stream == number && self.plan.takes_part(place) {
                self.soon(50, Happening::Operate(place, pelton_core::Operation::Resume));
                self.schedule_delivery(place);
            }
        }
    }

    fn swap(&mut self, place: usize) -> Checked {
        if std::mem::replace(&mut self.versions[place], 2) == 2 {
            return Ok(());
        }
        let Some(consumer) = self.id(place) else { return Ok(()) };
        self.tell(Input::Swapped { consumer })
    }

    /// From here on nothing goes wrong any more.
    pub(crate) fn calm_down(&mut self) -> Checked {
        self.calm = true;
        self.disks.has_room(self.host.is_some());
        self.wire.refuses = false;
        for number in 0..self.streams.len() {
            if self.streams[number].backwards.is_some() {
                self.heal(number);
            }
        }
        for place in 0..self.versions.len() {
            self.swap(place)?;
            self.outages_until_ms[place] = 0;
        }
        if self.host.is_none() {
            self.later(1, Happening::Boot);
        }
        self.later(200, Happening::Rounds);
        Ok(())
    }
}
