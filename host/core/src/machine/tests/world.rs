//! A small world around one core, in virtual time: streams, executors, a disk, a relay, and troubles that come at random.
//!
//! All that will happen stands on an agenda, by time. One seed decides everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chance::Chance;
use super::durable::{Applied, Durable, Name, ParkedRows};
use super::streams::{Broker, Stream};
use super::violation::{Broken, Checked, holds};
use super::world_policy;
use crate::batch::{Again, Batch};
use crate::breaks::Breaks;
use crate::cursor::Cursor;
use crate::ids::{ConsumerId, IdHash, RowId};
use crate::machine::{Arrival, Core, Fetch, Input, KnownConsumer, LaneId, Run, Settings, Start};
use crate::message::DeadLetter;
use crate::parked::{ParkLane, ParkPlace};
use crate::policy::Policy;
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
    /// The store has read parked messages.
    Fetched(Fetch),
    /// An operator resumes the consumer.
    Resume(ConsumerId),
    /// The plug-in of the consumer succeeds again.
    Healed(ConsumerId),
    /// The operator of the quiet time looks whether something needs a hand.
    PutRight,
    /// Something goes wrong, and later something else.
    Trouble,
    /// From here on nothing goes wrong any more.
    Calm,
}

impl Happening {
    /// Whether it dies with the host.
    fn is_of_host(&self) -> bool {
        !matches!(
            self,
            Self::Publish(_) | Self::Trouble | Self::Calm | Self::Resume(_) | Self::Healed(_) | Self::PutRight
        )
    }
}

/// What the world knows of one life of the host: gone with a crash.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) runs: BTreeMap<LaneId, Run>,
    pub(super) commit: Option<Arc<Batch>>,
    /// The marks that a lookup finds: durable ones and those of runs that ended.
    pub(super) marks: BTreeSet<(ConsumerId, IdHash)>,
    pub(super) applied: Applied,
    /// Messages that need no attempt any more, durably or not.
    pub(super) finished: BTreeSet<Name>,
    pub(super) parked: ParkedRows,
    pub(super) dead: BTreeMap<Name, Arc<DeadLetter>>,
    /// The highest version of each entity that nobody has to wait for any longer: it was parked until its deadline.
    pub(super) waited: BTreeMap<(ConsumerId, ParkLane), u64>,
    /// Lanes that an operator released.
    pub(super) forced: BTreeSet<(ConsumerId, ParkLane)>,
    /// Attempts begun.
    pub(super) begun: BTreeMap<ConsumerId, u64>,
    pub(super) began_ms: u64,
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
    pub(super) dead_letters: u64,
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
    /// How often what happened that the world is there for.
    pub(super) seen: BTreeMap<&'static str, u64>,
    traced: bool,
    /// Consumers that an operator paused.
    pub(super) paused: BTreeSet<ConsumerId>,
    /// Consumers whose plug-in fails, whatever the message.
    pub(super) sick: BTreeSet<ConsumerId>,
}

/// Troubles end at this time, in milliseconds.
const CALM_AT_MS: u64 = 4_000;
/// Everything must be done by this time, in milliseconds.
const STUCK_AT_MS: u64 = 600_000;

impl World {
    pub(super) fn new(seed: u64, breaks: Breaks) -> Self {
        let mut chance = Chance::new(seed);
        let settings = world_policy::settings(&mut chance, seed, breaks);
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
            seen: BTreeMap::new(),
            traced: std::env::var_os("PELTON_CORE_TRACE").is_some(),
            paused: BTreeSet::new(),
            sick: BTreeSet::new(),
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
                let known = KnownConsumer {
                    id: consumer,
                    name,
                    stream,
                    cursor: Cursor::default(),
                    holds: Vec::new(),
                    newest: None,
                    again: Again::default(),
                };
                self.durable.consumers.insert(consumer, known);
            }
            let policy = world_policy::policy(&mut self.chance);
            self.broker.stream(consumer).versions = policy.versions.map(|_| BTreeMap::new());
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

    /// A host starts on what is durable.
    fn boot(&mut self) {
        self.core = Core::new(self.settings, self.durable.recovered());
        self.life = Life {
            marks: self.durable.marks.clone(),
            applied: self.durable.applied.clone(),
            finished: self.durable.finished.clone(),
            parked: self.durable.parked.clone(),
            dead: self.durable.dead.clone(),
            began_ms: self.tick_ms,
            ..Life::default()
        };
        self.who_is_paused();
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
        if !self.life.parked.is_empty() {
            self.saw("crash while messages are parked");
        }
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
        self.trace(&input);
        self.core.handle(self.now(), input);
    }

    pub(super) fn now(&self) -> Now {
        Now { tick_ms: self.tick_ms, wall_ms: 1_000_000 + self.tick_ms }
    }

    /// Shows what happens, for whoever looks into a seed.
    pub(super) fn trace(&self, what: &dyn std::fmt::Debug) {
        if self.traced {
            println!("{} {what:?}", self.tick_ms);
        }
    }

    pub(super) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
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
                let policy = self.policies[&consumer].clone();
                self.tell(Input::Start { consumer, policy: Box::new(policy), start: Start::All });
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
            Happening::Fetched(fetch) => self.fetched(fetch),
            Happening::Resume(consumer) => self.resume(consumer),
            Happening::Healed(consumer) => _ = self.sick.remove(&consumer),
            Happening::PutRight => self.put_right(),
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
        match self.chance.below(24) {
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
            15 => {
                self.sick.insert(consumer);
                self.soon(400, Happening::Healed(consumer));
            }
            _ => return self.operator(consumer),
        }
        Ok(())
    }

    /// The store answers a fetch with what it has by now, or with the first part of it.
    fn fetched(&mut self, fetch: Fetch) {
        let Fetch { consumer, lane, ticket, after, rows_max, .. } = fetch;
        let most = self.chance.between(1, rows_max as u64) as usize;
        let behind = |place: &ParkPlace| after.is_none_or(|after| (place.order, place.id) > after);
        let own = |(of, place): &(ConsumerId, ParkPlace)| *of == consumer && place.lane == lane && behind(place);
        let rows = self.life.parked.iter().filter(|(place, _)| own(place)).take(most);
        let rows: Vec<_> = rows.map(|(_, row)| Arc::clone(row)).collect();
        self.saw(if rows.is_empty() { "fetch of nothing" } else { "fetch" });
        self.tell(Input::Fetched { consumer, lane, ticket, rows });
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
        if self.life.parked.keys().any(|(of, _)| *of == consumer) {
            self.saw("stream replaced while messages are parked");
        }
        self.lose(consumer);
        let old = self.broker.stream(consumer);
        let (created, to_come) = (old.identity.created_ns + 1, std::mem::take(&mut old.to_come));
        let versions = old.versions.take();
        let mut stream = Stream::new(consumer, created, to_come + self.chance.between(1, 10));
        stream.versions = versions;
        self.broker.streams.insert((consumer, created), stream);
        self.soon(30, Happening::Publish(consumer));
    }

    fn calm_down(&mut self) {
        self.calm = true;
        self.sick.clear();
        self.life.overlay_full = false;
        self.tell(Input::OverlayFull(false));
        for consumer in self.policies.keys().copied().collect::<Vec<_>>() {
            self.later(1, Happening::Start(consumer));
        }
        self.later(2, Happening::PutRight);
    }
}
