//! A reader that does what a host does: positions anew behind what it has settled whenever something is lost, and never gives up.

use std::collections::BTreeMap;

use super::*;

const CREDIT: u32 = 50;

pub(super) struct Follower {
    pub(super) reader: Reader,
    generation: u64,
    /// Everything up to it is settled.
    pub(super) floor: u64,
    /// Settles nothing above this sequence.
    pub(super) settle_max: u64,
    /// What came, by its sequence, and how often.
    pub(super) seen: BTreeMap<u64, (Delivery, u32)>,
    pub(super) lost: Vec<LostReason>,
    pub(super) last_seqs: Vec<u64>,
}

impl Follower {
    pub(super) fn start(connection: &Connection, settings: SubscriptionSettings) -> Self {
        Self::resumed(Reader::start(connection, settings), 0)
    }

    /// As a host that has settled everything up to `floor`.
    pub(super) fn resumed(reader: Reader, floor: u64) -> Self {
        reader.handle.position(1, floor, None);
        Self {
            reader,
            generation: 1,
            floor,
            settle_max: u64::MAX,
            seen: BTreeMap::new(),
            lost: vec![],
            last_seqs: vec![],
        }
    }

    /// Handles reports until this sequence has come.
    pub(super) async fn until(&mut self, sequence: u64) {
        let what = format!("sequence {sequence}");
        soon(&what, async {
            while !self.seen.contains_key(&sequence) {
                self.one().await;
            }
        })
        .await;
    }

    /// Handles reports until the connection was lost so many times.
    pub(super) async fn until_lost(&mut self, times: usize) {
        soon("the losses", async {
            while self.lost.len() < times {
                self.one().await;
            }
        })
        .await;
    }

    /// Handles one report.
    pub(super) async fn one(&mut self) {
        match self.reader.next().await {
            Incoming::Positioned { generation, stream, .. } if generation == self.generation => {
                self.last_seqs.push(stream.last_seq);
                self.reader.handle.pull(generation, CREDIT);
            }
            Incoming::Delivered { generation, deliveries, .. } if generation == self.generation => {
                self.take(deliveries);
            }
            Incoming::PullEnded { undelivered, generation, .. } => self.reader.handle.pull(generation, undelivered),
            Incoming::Lost { reason, .. } => {
                self.lost.push(reason);
                self.generation += 1;
                self.reader.handle.position(self.generation, self.floor, None);
            }
            Incoming::Offline { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, deliveries: Vec<Delivery>) {
        self.reader.handle.pull(self.generation, u32::try_from(deliveries.len()).unwrap());
        for delivery in deliveries {
            let sequence = delivery.sequence;
            self.seen.entry(sequence).or_insert((delivery, 0)).1 += 1;
            if sequence <= self.settle_max {
                self.floor = self.floor.max(sequence);
            }
        }
        self.reader.handle.settle(self.floor, vec![]);
    }

    /// Settles from now on whatever came and comes.
    pub(super) fn settle_all(&mut self) {
        self.settle_max = u64::MAX;
        self.floor = self.seen.keys().next_back().copied().unwrap_or(0);
        self.reader.handle.settle(self.floor, vec![]);
    }

    pub(super) fn unreadable(&self) -> Vec<u64> {
        self.seen.iter().filter(|(_, (delivery, _))| delivery.unreadable.is_some()).map(|(seq, _)| *seq).collect()
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        self.seen.keys().copied().collect()
    }
}
