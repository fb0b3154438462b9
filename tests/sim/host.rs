//! One life of the host: it opens the store, goes on where that ends, commits, checkpoints, and dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton::store::{Checkpointer, Log, Opened, Reader, Recovered as Found};
use pelton_core::batch::Batch;
use pelton_core::ids::ConsumerId;
use pelton_core::transaction::Terms;
use pelton_core::{Core, Input, KnownConsumer, LaneId, OutboxRow, Recovered, Run, Settings};

use crate::trouble::End;
use crate::violation::{Broken, Checked, holds};
use crate::world::{Happening, World};

/// A host that lives.
pub(crate) struct Host {
    pub(crate) core: Core,
    pub(crate) reader: Arc<Reader>,
    pub(crate) log: Log,
    pub(crate) checkpointer: Checkpointer,
    /// By the consumers' places.
    pub(crate) ids: Vec<ConsumerId>,
    pub(crate) terms: Vec<Arc<Terms>>,
    pub(crate) places: BTreeMap<ConsumerId, usize>,
    pub(crate) life: Life,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// Runs that are out, until the core is told of their end.
    pub(crate) runs: BTreeMap<LaneId, Out>,
    /// Those of them that no executor has taken yet.
    pub(crate) jobs: BTreeMap<LaneId, Run>,
    pub(crate) commit: Option<Arc<Batch>>,
    pub(crate) draining: bool,
    pub(crate) drained: bool,
    /// A checkpoint is on the agenda.
    pub(crate) checkpoint_planned: bool,
}

/// A run that is out.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) place: usize,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) ids: Vec<Box<str>>,
}

impl World {
    /// The host is started, if the disk lets it.
    pub(crate) fn boot(&mut self) -> Checked {
        if self.host.is_some() {
            return Ok(());
        }
        if !self.calm && self.chance.one_in(8) {
            // The start is interrupted as well.
            let end = if self.chance.one_in(2) { End::PowerLoss } else { End::Crash };
            let operations = self.chance.between(1, 40);
            self.disks.end_after(end, operations);
        }
        let opened = match self.disks.open(self.now()) {
            Ok(opened) => opened,
            Err(error) => {
                holds(self.disks.is_down(), Broken::Recovered, || format!("a sound store can't be opened: {error}"))?;
                self.tally.count("start-interrupted");
                return self.disks_end();
            }
        };
        self.find_out(&opened)?;
        let Opened { reader, log, checkpointer, recovered } = opened;
        let settings = Settings {
            runs_max: self.plan.runs_max,
            short_runs_max: self.plan.short_runs_max,
            run_messages_max: self.plan.run_messages_max,
            relay_in_flight_max: self.plan.relay_in_flight_max,
            published_flush_ms: self.plan.published_flush_ms,
            jitter_seed: self.plan.seed,
            breaks: self.breaks,
            ..Settings::default()
        };
        self.check_recovered(&recovered, &reader)?;
        let mut core = Core::new(settings, known(recovered));
        let ids: Vec<_> = self.ledger.books.iter().map(|books| core.register(&books.name)).collect();
        let places = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let terms = self.ledger.books.iter().map(|books| Arc::new(books.terms())).collect();
        self.host = Some(Host { core, reader, log, checkpointer, ids, terms, places, life: Life::default() });
        for place in 0..self.ledger.books.len() {
            if self.plan.takes_part(place) {
                self.soon(20, Happening::Start(place));
            }
        }
        self.check_readers()
    }

    pub(crate) fn start_consumer(&mut self, place: usize) -> Checked {
        let Some(consumer) = self.id(place) else { return Ok(()) };
        let (Some(books), Some(plan)) = (self.ledger.books.get(place), self.plan.consumers.get(place)) else {
            return Ok(());
        };
        let (policy, start) = (books.policy.clone(), plan.start);
        self.tell(Input::Start { consumer, policy: Box::new(policy), start })
    }

    /// The commit that is under way ends: well, or with the host.
    pub(crate) fn commit_ends(&mut self) -> Checked {
        let Some(host) = &mut self.host else { return Ok(()) };
        let Some(batch) = host.life.commit.clone() else { return Ok(()) };
        if let Err(error) = host.log.append(&batch) {
            holds(self.disks.is_down(), Broken::Recovered, || format!("an append fails: {error}"))?;
            return self.disks_end();
        }
        host.life.commit = None;
        let bytes = host.reader.overlay_bytes();
        let places = std::mem::take(&mut host.places);
        let laid = self.ledger.commit(&batch, &|id| places.get(&id).copied());
        if let Some(host) = &mut self.host {
            host.places = places;
        }
        laid?;
        if bytes >= self.plan.overlay_bytes_max {
            self.tally.count("overlay-full");
            self.tell(Input::OverlayFull(true))?;
            self.soon(20, Happening::Checkpoint);
        }
        self.plan_checkpoint(self.plan.delays.checkpoint_ms);
        self.tell(Input::Committed)?;
        self.check_after_commit(&batch)
    }

    pub(crate) fn checkpoint(&mut self) -> Checked {
        let now = self.now();
        let Some(host) = &mut self.host else { return Ok(()) };
        host.life.checkpoint_planned = false;
        if let Err(error) = host.checkpointer.run(now) {
            holds(self.disks.is_down(), Broken::Recovered, || format!("a checkpoint fails: {error}"))?;
            return self.disks_end();
        }
        self.tally.count("checkpoint");
        if host.reader.overlay_bytes() < self.plan.overlay_bytes_max {
            self.tell(Input::OverlayFull(false))?;
        }
        let left = self.host.as_ref().is_some_and(|host| host.reader.overlay_bytes() > 0);
        if left {
            self.plan_checkpoint(self.plan.delays.checkpoint_ms);
        }
        Ok(())
    }

    /// Unless there is one on the agenda.
    fn plan_checkpoint(&mut self, within_ms: u64) {
        let life = self.host.as_mut().map(|host| &mut host.life);
        if life.is_some_and(|life| !std::mem::replace(&mut life.checkpoint_planned, true)) {
            self.soon(within_ms, Happening::Checkpoint);
        }
    }

    /// The disks stopped in the middle of something: the host is gone, in the way that was planned for it.
    pub(crate) fn disks_end(&mut self) -> Checked {
        let end = self.disks.end();
        self.die(end)
    }

    /// The host dies. A commit that was under way may be durable: the next start finds out.
    pub(crate) fn die(&mut self, end: End) -> Checked {
        match end {
            End::Crash => self.tally.crashes += 1,
            End::PowerLoss => self.tally.power_losses += 1,
            End::IoError => self.tally.io_errors += 1,
        }
        let host = self.host.take();
        self.disks.restart(end, &mut self.chance);
        if let Some(host) = host {
            self.in_doubt = host.life.commit.map(|batch| (batch, host.places));
        }
        self.host_is_gone()
    }

    /// After the host has ended, one way or another.
    fn host_is_gone(&mut self) -> Checked {
        self.cut_wire(false)?;
        self.forget_the_hosts_agenda();
        for subscription in &mut self.subscriptions {
            subscription.end();
        }
        self.soon(if self.disks.is_full() { 400 } else { 60 }, Happening::Boot);
        Ok(())
    }

    /// Whether the commit that was under way when the host died is durable. Then all that was not durable is forgotten by the model, too.
    fn find_out(&mut self, opened: &Opened) -> Checked {
        if let Some((batch, places)) = self.in_doubt.take() {
            // It is there as a whole or not at all: if the store is not what it was before, it has to be what it is with the batch, which is checked after this.
            if self.check_recovered(&opened.recovered, &opened.reader).is_err() {
                self.tally.in_doubt.0 += 1;
                self.ledger.commit(&batch, &|id| places.get(&id).copied())?;
            } else {
                self.tally.in_doubt.1 += 1;
            }
        }
        self.ledger.outbox.host_is_gone();
        self.ledger.books.iter_mut().for_each(crate::books::Books::host_is_gone);
        Ok(())
    }

    /// The host has drained: a last checkpoint, and it closes its files.
    pub(crate) fn close(&mut self) -> Checked {
        let now = self.now();
        let Some(mut host) = self.host.take() else { return Ok(()) };
        let folded = host.checkpointer.run(now);
        let left = host.reader.overlay_bytes();
        if let Err(error) = folded {
            drop(host);
            holds(self.disks.is_down(), Broken::Recovered, || format!("the last checkpoint fails: {error}"))?;
            return self.disks_end();
        }
        // What was parked, dead or applied without being committed would be left here.
        holds(left == 0, Broken::Leak, || format!("{left} bytes are left in the overlay of a host that drained"))?;
        drop(host);
        if self.disks.is_down() {
            return self.disks_end();
        }
        self.host_is_gone()
    }
}

/// What the store found, in the core's words.
fn known(found: Found) -> Recovered {
    let consumer = |found: pelton::store::RecoveredConsumer| KnownConsumer {
        id: found.id,
        name: found.name,
        stream: found.stream,
        cursor: found.cursor,
        holds: found.holds,
        newest: found.newest,
        again: found.again,
    };
    let row = |pelton::store::OutboxRow { row, consumer, event, since_ms }| OutboxRow {
        row,
        consumer,
        event: Arc::new(event),
        since_ms,
    };
    Recovered {
        consumers: found.consumers.into_iter().map(consumer).collect(),
        outbox: found.outbox.into_iter().map(row).collect(),
        next_row: found.next_row.0,
        parked: found.parked,
        next_park: found.next_park.0,
        next_consumer: found.next_consumer.0,
    }
}
