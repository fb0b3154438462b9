//! The world of one run, in virtual time: a broker, disks, a host that dies and comes back, and the model that all of it is compared with.
//!
//! All that will happen stands on an agenda, by time; the plan and one generator decide everything, so a run is a function of its case.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pelton_core::batch::Batch;
use pelton_core::breaks::Breaks;
use pelton_core::ids::{ConsumerId, RowId};
use pelton_core::time::Now;
use pelton_core::{Arrival, Fetch, Input, LaneId, Operation};
use rustc_hash::FxHasher;

use crate::books::Books;
use crate::broker::{Stream, Subscription};
use crate::chance::Chance;
use crate::disk::Disks;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::trouble::Planned;
use crate::violation::{Broken, Checked, holds};
use crate::wire::Wire;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Messages are published to a stream.
    Publish(usize),
    /// Something goes wrong, or an operator does something.
    Trouble(Planned),
    /// A stream that went backwards has all its messages again.
    Heal(usize),
    /// The output stream takes events again.
    OutputTakes,
    /// There is room on the disk again.
    DiskHasRoom,
    /// The host is started.
    Boot,
    /// From here on nothing goes wrong any more.
    Calm,
    /// An operator looks whether anything needs help.
    Rounds,
    /// What follows dies with the host.
    Start(usize),
    Positioned(usize, u64),
    Deliver(usize, u64),
    /// Messages arrive that were on the way when the subscription broke.
    Late(usize, u64, Vec<Arrival>),
    Redeliver(usize, u64),
    /// An executor takes a run.
    Execute(LaneId),
    /// An executor reads parked messages.
    Read(Fetch),
    CommitEnds,
    Checkpoint,
    /// Events reach the broker.
    WireMoves,
    /// The broker's answers reach the host, on the connection of this number.
    Acked(u64, Vec<RowId>),
    Refused(u64, RowId),
    /// An operator's request reaches the core.
    Operate(usize, Operation),
    /// The core is told.
    Tell(Input),
}

impl Happening {
    fn is_of_host(&self) -> bool {
        !matches!(
            self,
            Self::Publish(_)
                | Self::Trouble(_)
                | Self::Heal(_)
                | Self::OutputTakes
                | Self::DiskHasRoom
                | Self::Boot
                | Self::Calm
                | Self::Rounds
        )
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) breaks: Breaks,
    pub(crate) chance: Chance,
    pub(crate) tick_ms: u64,
    pub(crate) wall_offset_ms: i64,
    agenda: BTreeMap<(u64, u64), Happening>,
    serial: u64,
    pub(crate) streams: Vec<Stream>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) wire: Wire,
    pub(crate) ledger: Ledger,
    pub(crate) disks: Disks,
    pub(crate) host: Option<Host>,
    /// The commit that was under way when the host died, and the consumers' numbers in it.
    pub(crate) in_doubt: Option<(Arc<Batch>, BTreeMap<ConsumerId, usize>)>,
    /// The version of each consumer's plug-in: 1 or 2.
    pub(crate) versions: Vec<u8>,
    /// Until when nothing works that a consumer depends on.
    pub(crate) outages_until_ms: Vec<u64>,
    pub(crate) calm: bool,
    pub(crate) tally: Tally,
    /// Of all that happened, so that two runs of a case can be compared.
    trace: FxHasher,
}

/// Everything must be done so long after the calm began, in milliseconds.
const STUCK_AFTER_MS: u64 = 3_600_000;
/// Nothing takes more steps than this per message.
const STEPS_PER_MESSAGE: u64 = 3_000;
/// The time on the wall when a run begins: milliseconds since 1970-01-01 UTC.
const EPOCH_MS: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(plan: Plan, breaks: Breaks) -> Checked<Self> {
        let streams = plan.streams.iter().enumerate().map(|(number, plan)| Stream::new(number, plan)).collect();
        let book = |plan: &crate::plan::ConsumerPlan| {
            Books::new(plan.name.clone(), plan.stream, plan.keyed, plan.policy.clone())
        };
        let books: Vec<_> = plan.consumers.iter().map(book).collect();
        let count = books.len();
        let ledger = Ledger { books, outbox: Outbox::default(), next_park: 0, settled: 0, released: 0, batches: 0 };
        Ok(Self {
            breaks,
            chance: Chance::new(plan.seed ^ 0x5151),
            tick_ms: 0,
            wall_offset_ms: 0,
            agenda: BTreeMap::new(),
            serial: 0,
            streams,
            subscriptions: (0..count).map(|_| Subscription::default()).collect(),
            wire: Wire::default(),
            ledger,
            disks: Disks::new(plan.seed)?,
            host: None,
            in_doubt: None,
            versions: vec![1; count],
            outages_until_ms: vec![0; count],
            calm: false,
            tally: Tally::default(),
            trace: FxHasher::default(),
            plan,
        })
    }

    /// Lives through it all.
    pub(crate) fn run(&mut self) -> Checked {
        for stream in 0..self.streams.len() {
            self.soon(20, Happening::Publish(stream));
        }
        for planned in self.plan.troubles.clone() {
            self.later(planned.at_ms, Happening::Trouble(planned));
        }
        self.later(self.plan.calm_at_ms, Happening::Calm);
        self.boot()?;
        let messages: u64 = self.plan.streams.iter().map(|stream| stream.messages).sum();
        let mut steps_left = 100_000 + messages * STEPS_PER_MESSAGE;
        loop {
            self.act()?;
            let planned = self.agenda.keys().next().map(|(tick_ms, _)| *tick_ms);
            let wanted = self.host.as_ref().and_then(|host| host.core.next_wakeup());
            let Some(next) = planned.into_iter().chain(wanted).min() else { break };
            steps_left = steps_left.saturating_sub(1);
            let stuck = next > self.plan.calm_at_ms + STUCK_AFTER_MS || steps_left == 0;
            holds(!stuck, Broken::Stuck, || self.describe())?;
            self.tick_ms = self.tick_ms.max(next);
            if planned == Some(next) {
                if let Some((_, happening)) = self.agenda.pop_first() {
                    std::mem::discriminant(&happening).hash(&mut self.trace);
                    self.happen(happening)?;
                }
            } else {
                self.tell(Input::Tick)?;
            }
        }
        self.check_end()
    }

    /// A number that is the same for two runs in which the same happened at the same times.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn now(&self) -> Now {
        let wall_ms = (EPOCH_MS + self.tick_ms).saturating_add_signed(self.wall_offset_ms);
        Now { tick_ms: self.tick_ms, wall_ms }
    }

    /// The broker's clock, which nothing ever sets: milliseconds since 1970-01-01 UTC.
    pub(crate) fn broker_ms(&self) -> u64 {
        EPOCH_MS + self.tick_ms
    }

    /// Tells the core that something happened.
    pub(crate) fn tell(&mut self, input: Input) -> Checked {
        let now = self.now();
        (now.tick_ms, now.wall_ms).hash(&mut self.trace);
        std::mem::discriminant(&input).hash(&mut self.trace);
        if let Some(host) = &mut self.host {
            if let Input::RunEnded { lane, results, .. } = &input {
                results.len().hash(&mut self.trace);
                host.life.runs.remove(lane);
            }
            host.core.handle(now, input);
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    pub(crate) fn later(&mut self, delay_ms: u64, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.tick_ms + delay_ms, self.serial), happening);
    }

    pub(crate) fn soon(&mut self, within_ms: u64, happening: Happening) {
        let delay_ms = self.chance.below(within_ms);
        self.later(delay_ms, happening);
    }

    /// Nothing of what the host was about to do happens any more.
    pub(crate) fn forget_the_hosts_agenda(&mut self) {
        self.agenda.retain(|_, happening| !happening.is_of_host());
    }

    /// The place of a consumer by its number in this life.
    pub(crate) fn place(&self, consumer: ConsumerId) -> Option<usize> {
        self.host.as_ref().and_then(|host| host.places.get(&consumer).copied())
    }

    /// The number of a consumer in this life.
    pub(crate) fn id(&self, place: usize) -> Option<ConsumerId> {
        self.host.as_ref().and_then(|host| host.ids.get(place).copied())
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Publish(stream) => self.publish(stream),
            Happening::Trouble(planned) => return self.trouble(planned),
            Happening::Heal(stream) => self.heal(stream),
            Happening::OutputTakes => self.wire.refuses = false,
            Happening::DiskHasRoom => self.disks.has_room(self.host.is_some()),
            Happening::Boot => return self.boot(),
            Happening::Calm => return self.calm_down(),
            Happening::Rounds => return self.make_rounds(),
            Happening::Start(place) => return self.start_consumer(place),
            Happening::Positioned(place, generation) => return self.positioned(place, generation),
            Happening::Deliver(place, generation) => return self.deliver(place, generation),
            Happening::Late(place, generation, arrivals) => return self.deliver_late(place, generation, arrivals),
            Happening::Redeliver(place, generation) => return self.redeliver(place, generation),
            Happening::Execute(lane) => return self.execute(lane),
            Happening::Read(fetch) => return self.read(fetch),
            Happening::CommitEnds => return self.commit_ends(),
            Happening::Checkpoint => return self.checkpoint(),
            Happening::WireMoves => return self.wire_moves(),
            Happening::Acked(connection, rows) => return self.acked(connection, rows),
            Happening::Refused(connection, row) => return self.refused(connection, row),
            Happening::Operate(place, operation) => return self.operate(place, operation),
            Happening::Tell(input) => return self.tell(input),
        }
        Ok(())
    }

    /// Where everything stands, for whoever looks for what it waits for.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("at {} ms: ", self.tick_ms);
        for (place, books) in self.ledger.books.iter().enumerate().filter(|(place, _)| self.plan.takes_part(*place)) {
            let unsettled = books.bound.and_then(|bound| books.streams.get(bound)).map(|of| &of.unsettled);
            let unsettled: Vec<_> = unsettled.into_iter().flatten().take(3).collect();
            let parked: Vec<_> = books.now.rows.values().take(2).collect();
            let subscription = &self.subscriptions[place];
            text += &format!(
                "{} waits for {unsettled:?}, parked {} beginning with {parked:?}, generation {:?}, credit {}; ",
                books.name,
                books.now.rows.len(),
                subscription.generation,
                subscription.credit
            );
        }
        let next: Vec<_> = self.agenda.iter().take(4).collect();
        text + &format!("next: {next:?}; {:?}", self.host.as_ref().map(|host| host.core.status()))
    }
}
