//! A small world around one core, in virtual time: streams, executors, a disk, a relay, and troubles that come at random.
//!
//! All that will happen stands on an agenda, by time. One seed decides everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chance::Chance;
use super::durable::Durable;
use super::streams::{Broker, Stream};
use super::violation::{Broken, Checked, holds};
use crate::batch::Batch;
use crate::breaks::Breaks;
use crate::cursor::Cursor;
use crate::ids::{ConsumerId, IdHash, RowId};
use crate::machine::{Arrival, Core, Input, KnownConsumer, LaneId, Run, Settings, Start};
use crate::policy::{ParkPolicy, Policy, RetryPolicy};
use crate::time::Now;

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A message is published to this consumer's stream.
    Publish(ConsumerId),
    /// The subscription stands where it was to stand.
    Positioned(ConsumerId, u64),
    /// Messages arrive, if this generation is still the one.
    Deliver(ConsumerId, u64),
    /// Messages arrive that were on the way when the subscription broke.
    DeliverLate(ConsumerId, u64, Vec<Arrival>),
    /// The subscription of this generation breaks.
    Lost(ConsumerId, u64),
    /// The operator starts the consumer.
    Start(ConsumerId),
    RunEnds(LaneId),
    CommitEnds,
    /// JetStream answers a publish.
    Answer(RowId),
    OverlayEmpty,
    /// Something goes wrong, and later something else.
    Trouble,
    /// From here on nothing goes wrong any more.
    Calm,
}

impl Happening {
    /// Whether it dies with the host.
    fn is_of_host(&self) -> bool {
        !matches!(self, Self::Publish(_) | Self::Trouble | Self::Calm)
    }
}

/// What the world knows of one life of the host: gone with a crash.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) runs: BTreeMap<LaneId, Run>,
    pub(super) commit: Option<Arc<Batch>>,
    /// The marks that a lookup finds: durable ones and those of runs that ended.
    pub(super) marks: BTreeSet<(ConsumerId, IdHash)>,
    pub(super) last_of_key: BTreeMap<(ConsumerId, i64, Arc<str>), u64>,
    /// Messages with an outcome, durable or not.
    pub(super) finished: BTreeSet<(ConsumerId, i64, u64)>,
    pub(super) in_flight: BTreeSet<RowId>,
    /// Refused, and not acknowledged since.
    pub(super) refused: BTreeSet<RowId>,
    pub(super) acknowledged: BTreeSet<RowId>,
    pub(super) overlay_full: bool,
    pub(super) draining: bool,
    pub(super) drained: bool,
    pub(super) books: BTreeMap<ConsumerId, Tally>,
}

/// What a consumer's counters must say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) failed: u64,
    /// Dead letters because of failed attempts.
    pub(super) given_up: u64,
    pub(super) unreadable: u64,
    pub(super) published: u64,
    pub(super) outbox_rows: usize,
}

/// The world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) settings: Settings,
    pub(super) policies: BTreeMap<ConsumerId, Policy>,
    pub(super) core: Core,
    pub(super) tick_ms: u64,
    pub(super) agenda: BTreeMap<(u64, u64), Happening>,
    serial: u64,
    pub(super) durable: Durable,
    pub(super) broker: Broker,
    pub(super) life: Life,
    pub(super) calm: bool,
    pub(super) crashes: u64,
}

/// Troubles end at this time, in milliseconds.
const CALM_AT_MS: u64 = 4_000;
/// Everything must be done by this time, in milliseconds.
const STUCK_AT_MS: u64 = 600_000;

impl World {
    pub(super) fn new(seed: u64, breaks: Breaks) -> Self {
        let mut chance = Chance::new(seed);
        let settings = Settings {
            runs_max: chance.between(1, 5) as usize,
            run_messages_max: chance.between(1, 6) as usize,
            relay_in_flight_max: chance.between(1, 12) as usize,
            published_flush_ms: chance.between(1, 300),
            jitter_seed: seed,
            breaks,
        };
        Self {
            chance,
            settings,
            policies: BTreeMap::new(),
            core: Core::new(settings, crate::machine::Recovered::default()),
            tick_ms: 0,
            agenda: BTreeMap::new(),
            serial: 0,
            durable: Durable::default(),
            broker: Broker::default(),
            life: Life::default(),
            calm: false,
            crashes: 0,
        }
    }

    /// Lives through it all.
    pub(super) fn run(&mut self) -> Checked {
        let consumers = self.chance.between(1, 3) as u32;
        for number in 1..=consumers {
            let consumer = ConsumerId(number);
            let to_come = self.chance.between(10, 80);
            self.broker.streams.insert((consumer, 1), Stream::new(consumer, 1, to_come));
            // All but the last were bound before, so that their numbers stay the same whatever is lost in a crash.
            if number < consumers {
                let name = format!("c{number}").into();
                let stream = self.broker.stream(consumer).identity.clone();
                let known = KnownConsumer { id: consumer, name, stream, cursor: Cursor::default() };
                self.durable.consumers.insert(consumer, known);
            }
            let policy = self.policy();
            self.policies.insert(consumer, policy);
            self.soon(50, Happening::Publish(consumer));
        }
        self.boot();
        self.soon(300, Happening::Trouble);
        self.later(CALM_AT_MS, Happening::Calm);
        loop {
            self.act()?;
            self.check_books()?;
            if self.life.drained {
                self.crash(false)?;
                continue;
            }
            let planned = self.agenda.keys().next().map(|(tick_ms, _)| *tick_ms);
            let wanted = self.core.next_wakeup();
            let Some(next) = planned.into_iter().chain(wanted).min() else { break };
            holds(next < STUCK_AT_MS, Broken::Stuck, || format!("still busy: {:?}", self.core.status()))?;
            self.tick_ms = self.tick_ms.max(next);
            if planned == Some(next) {
                let (_, happening) = self.agenda.pop_first().expect("it was planned");
                self.happen(happening)?;
            } else {
                self.tell(Input::Tick);
            }
        }
        self.check_end()
    }

    fn policy(&mut self) -> Policy {
        let chance = &mut self.chance;
        Policy {
            retry: RetryPolicy {
                attempts_max: chance.between(1, 5) as u32,
                first_delay_ms: chance.between(1, 50),
                longest_delay_ms: 200,
                ..RetryPolicy::default()
            },
            park: ParkPolicy { delay_ms: chance.between(1, 80), longest_ms: chance.between(1, 400) },
            messages_held_max: chance.between(1, 40) as usize,
            bytes_held_max: chance.between(300, 20_000) as usize,
            outbox_rows_max: chance.between(1, 60) as usize,
            shared_state: chance.one_in(5),
        }
    }

    /// A host starts on what is durable.
    fn boot(&mut self) {
        self.core = Core::new(self.settings, self.durable.recovered());
        self.life = Life {
            marks: self.durable.marks.clone(),
            last_of_key: self.durable.last_of_key.clone(),
            finished: self.durable.settled.clone(),
            ..Life::default()
        };
        for (consumer, _) in self.durable.outbox.values() {
            self.life.books.entry(*consumer).or_default().outbox_rows += 1;
        }
        for consumer in self.policies.keys().copied().collect::<Vec<_>>() {
            assert_eq!(self.core.register(&format!("c{}", consumer.0)), consumer);
            self.soon(20, Happening::Start(consumer));
        }
    }

    /// The host dies, or ends after it was drained. A commit that was under way may have become durable.
    pub(super) fn crash(&mut self, may_finish_commit: bool) -> Checked {
        self.crashes += 1;
        if let Some(batch) = self.life.commit.take()
            && may_finish_commit
            && self.chance.one_in(2)
        {
            self.durable.apply(&batch, &self.broker)?;
        }
        for row in std::mem::take(&mut self.life.in_flight) {
            if self.chance.one_in(2) {
                self.broker.events.insert(row);
            }
        }
        self.agenda.retain(|_, happening| !happening.is_of_host());
        self.broker.host_is_gone();
        self.boot();
        Ok(())
    }

    pub(super) fn tell(&mut self, input: Input) {
        let now = Now { tick_ms: self.tick_ms, wall_ms: 1_000_000 + self.tick_ms };
        self.core.handle(now, input);
    }

    pub(super) fn later(&mut self, delay_ms: u64, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.tick_ms + delay_ms, self.serial), happening);
    }

    pub(super) fn soon(&mut self, within_ms: u64, happening: Happening) {
        let delay_ms = self.chance.below(within_ms);
        self.later(delay_ms, happening);
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Publish(consumer) => self.publish(consumer),
            Happening::Positioned(consumer, generation) => self.positioned(consumer, generation),
            Happening::Deliver(consumer, generation) => self.deliver(consumer, generation),
            Happening::DeliverLate(consumer, generation, arrivals) => {
                self.tell(Input::Delivered { consumer, generation, arrivals });
            }
            Happening::Lost(consumer, generation) => self.tell(Input::Lost { consumer, generation }),
            Happening::Start(consumer) => {
                let policy = self.policies[&consumer];
                self.tell(Input::Start { consumer, policy, start: Start::All });
            }
            Happening::RunEnds(lane) => return self.run_ends(lane),
            Happening::CommitEnds => {
                let batch = self.life.commit.take().expect("one was under way");
                self.durable.apply(&batch, &self.broker)?;
                self.tell(Input::Committed);
            }
            Happening::Answer(row) => self.answer(row),
            Happening::OverlayEmpty => {
                self.life.overlay_full = false;
                self.tell(Input::OverlayFull(false));
            }
            Happening::Trouble => return self.trouble(),
            Happening::Calm => self.calm_down(),
        }
        Ok(())
    }

    fn publish(&mut self, consumer: ConsumerId) {
        let stream = self.broker.stream(consumer);
        if stream.to_come == 0 {
            return;
        }
        stream.publish(&mut self.chance);
        self.soon(60, Happening::Publish(consumer));
        self.schedule_delivery(consumer);
    }

    fn positioned(&mut self, consumer: ConsumerId, generation: u64) {
        let stream = self.broker.stream(consumer);
        let (stream, last_sequence) = (stream.identity.clone(), stream.last_sequence);
        let subscription = self.broker.subscription(consumer);
        subscription.positioned |= subscription.generation == Some(generation);
        self.tell(Input::Positioned { consumer, generation, stream, last_sequence });
    }

    pub(super) fn schedule_delivery(&mut self, consumer: ConsumerId) {
        let subscription = self.broker.subscription(consumer);
        if let Some(generation) = subscription.generation
            && subscription.credit > 0
            && !std::mem::replace(&mut subscription.scheduled, true)
        {
            self.soon(8, Happening::Deliver(consumer, generation));
        }
    }

    fn deliver(&mut self, consumer: ConsumerId, generation: u64) {
        let subscription = self.broker.subscription(consumer);
        if subscription.generation != Some(generation) {
            return;
        }
        subscription.scheduled = false;
        let (position, credit) = (subscription.position, subscription.credit);
        let most = self.chance.between(1, credit.max(1) as u64) as usize;
        let arrivals = self.broker.stream(consumer).after(position, most.min(credit));
        let end_pull = !self.calm && self.chance.one_in(8);
        let subscription = self.broker.subscription(consumer);
        subscription.credit -= arrivals.len();
        if let Some(last) = arrivals.last() {
            subscription.position = last.message.sequence;
        }
        let undelivered = if end_pull { std::mem::take(&mut subscription.credit) as u32 } else { 0 };
        if !arrivals.is_empty() {
            self.tell(Input::Delivered { consumer, generation, arrivals });
            self.schedule_delivery(consumer);
        }
        if end_pull {
            self.tell(Input::PullEnded { consumer, generation, undelivered });
        }
    }

    fn trouble(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        self.soon(400, Happening::Trouble);
        let consumer = ConsumerId(self.chance.between(1, self.policies.len() as u64) as u32);
        match self.chance.below(16) {
            0..=5 => self.lose(consumer),
            6..=8 => self.crash(true)?,
            9 if !self.life.draining => {
                self.life.draining = true;
                self.tell(Input::Drain);
            }
            10..=12 if !self.life.draining => {
                self.tell(Input::Stop { consumer });
                self.soon(150, Happening::Start(consumer));
            }
            13 => self.replace_stream(consumer),
            14 if !self.life.overlay_full => {
                self.life.overlay_full = true;
                self.tell(Input::OverlayFull(true));
                self.soon(100, Happening::OverlayEmpty);
            }
            _ => {}
        }
        Ok(())
    }

    /// The subscription breaks, and the core hears of it some time later.
    fn lose(&mut self, consumer: ConsumerId) {
        let subscription = self.broker.subscription(consumer);
        if let Some(generation) = subscription.generation.take() {
            let (position, credit) = (subscription.position, std::mem::take(&mut subscription.credit));
            let on_the_way = self.chance.between(0, credit as u64) as usize;
            let arrivals = self.broker.stream(consumer).after(position, on_the_way);
            self.soon(60, Happening::DeliverLate(consumer, generation, arrivals));
            self.soon(60, Happening::Lost(consumer, generation));
        }
    }

    /// The stream is deleted and made anew.
    fn replace_stream(&mut self, consumer: ConsumerId) {
        self.lose(consumer);
        let old = self.broker.stream(consumer);
        let (created, to_come) = (old.identity.created_ns + 1, std::mem::take(&mut old.to_come));
        let stream = Stream::new(consumer, created, to_come + self.chance.between(1, 10));
        self.broker.streams.insert((consumer, created), stream);
        self.soon(30, Happening::Publish(consumer));
    }

    fn calm_down(&mut self) {
        self.calm = true;
        self.life.overlay_full = false;
        self.tell(Input::OverlayFull(false));
        for consumer in self.policies.keys().copied().collect::<Vec<_>>() {
            self.later(1, Happening::Start(consumer));
        }
    }
}
