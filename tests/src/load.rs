//! Publishes without pause over skewed keys, with repetitions under the same message id, and tells the checker what JetStream has
//! acknowledged.
//!
//! What always holds: the messages of a key are stored in the order of their numbers. While the server may die, so that nobody knows
//! which of the last ones it has stored, a key has one message in flight, and the one without an ack is published again, under the same
//! id, before the key goes on. While the server is safe, one connection keeps the order and a key may have a burst in flight.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::jetstream::context::PublishAckFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::checker::{Checker, Published};
use crate::client::{Client, Outgoing};
use crate::random::{Random, Zipf};

/// How long an ack is waited for before the message is published again.
const ACK_LIMIT: Duration = Duration::from_secs(2);

/// Messages that may be repeated later.
const REMEMBERED_MAX: usize = 20_000;

/// What is published.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// First token of the subjects; the second is the key.
    pub prefix: String,
    /// How many keys.
    pub keys: usize,
    /// How skewed the choice of keys is: 0 is even, 1 is common.
    pub exponent: f64,
    /// The part of all messages that repeats an earlier one.
    pub duplicates: f64,
    /// The part of all messages whose first attempts fail, so that their keys wait.
    pub failing: f64,
    /// Messages in flight, at most.
    pub window: usize,
    /// Messages a second, at most.
    pub rate: u32,
    /// Payload in bytes.
    pub payload_bytes: usize,
}

/// A ledger message as it is published.
#[must_use]
pub fn ledger_message(subject: String, id: &str, n: u64, payload_bytes: usize) -> Outgoing {
    failing_message(subject, id, n, 0, payload_bytes)
}

/// One whose first `fails` attempts fail.
fn failing_message(subject: String, id: &str, n: u64, fails: u64, payload_bytes: usize) -> Outgoing {
    let bare = if fails == 0 { format!("\"n\":{n}") } else { format!("\"n\":{n},\"fails\":{fails}") };
    let pad = "x".repeat(payload_bytes.saturating_sub(bare.len() + "{,\"pad\":\"\"}".len()));
    Outgoing::new(subject, format!("{{{bare},\"pad\":\"{pad}\"}}")).id(id)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run { burst: usize },
    Pause,
    End,
}

/// A publisher in the background. Dropped, it stops where it is.
#[derive(Debug)]
pub struct Load {
    order: watch::Sender<Order>,
    idle: watch::Receiver<bool>,
    task: JoinHandle<Result<()>>,
}

impl Load {
    /// Starts publishing, up to `burst` messages of a key at a time. Acknowledged messages are noted in `checker`.
    #[must_use]
    pub fn start(client: Client, plan: LoadPlan, random: Random, checker: Arc<Mutex<Checker>>, burst: usize) -> Self {
        let (order, orders) = watch::channel(Order::Run { burst });
        let (idle_tx, idle) = watch::channel(false);
        let publisher = Publisher::new(client, plan, random, checker);
        Self { order, idle, task: tokio::spawn(publisher.run(orders, idle_tx)) }
    }

    /// Stops publishing; returns when everything published is acknowledged and noted.
    ///
    /// # Errors
    /// The publisher has failed.
    pub async fn pause(&mut self) -> Result<()> {
        self.order.send_replace(Order::Pause);
        self.idle.wait_for(|idle| *idle).await.context("the publisher has ended")?;
        Ok(())
    }

    /// Goes on, with up to `burst` messages of a key in flight: 1 if the server may die.
    pub fn resume(&self, burst: usize) {
        self.order.send_replace(Order::Run { burst });
    }

    /// Ends it.
    ///
    /// # Errors
    /// The publisher had failed.
    pub async fn end(mut self) -> Result<()> {
        self.order.send_replace(Order::End);
        (&mut self.task).await.context("the publisher was cancelled")?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Publisher {
    client: Client,
    plan: LoadPlan,
    zipf: Zipf,
    random: Random,
    checker: Arc<Mutex<Checker>>,
    numbers: Vec<u64>,
    /// Published without an ack so far, each of another key.
    unsure: Vec<Published>,
    remembered: VecDeque<Published>,
}

impl Publisher {
    fn new(client: Client, plan: LoadPlan, random: Random, checker: Arc<Mutex<Checker>>) -> Self {
        let zipf = Zipf::new(plan.keys, plan.exponent);
        let numbers = vec![0; plan.keys.max(1)];
        Self { client, plan, zipf, random, checker, numbers, unsure: Vec::new(), remembered: VecDeque::new() }
    }

    async fn run(mut self, mut orders: watch::Receiver<Order>, idle: watch::Sender<bool>) -> Result<()> {
        loop {
            let order = *orders.borrow_and_update();
            let began = Instant::now();
            let sent = match order {
                Order::Run { burst } => self.window(burst).await,
                _ if !self.unsure.is_empty() => self.window(0).await,
                Order::End => return Ok(()),
                Order::Pause => {
                    idle.send_replace(true);
                    if orders.changed().await.is_err() {
                        return Ok(());
                    }
                    idle.send_replace(false);
                    continue;
                }
            };
            let fair = Duration::from_secs_f64(sent as f64 / f64::from(self.plan.rate.max(1)));
            tokio::time::sleep(fair.saturating_sub(began.elapsed())).await;
        }
    }

    /// Publishes one window and waits for its acks; says how many messages it was.
    async fn window(&mut self, burst: usize) -> usize {
        let mut batch = std::mem::take(&mut self.unsure);
        let mut repeated = Vec::new();
        if burst > 0 {
            self.draw(burst, &mut batch, &mut repeated);
        }
        let mut acks = Vec::with_capacity(batch.len());
        for message in batch.iter().chain(&repeated) {
            acks.push(self.client.send(&self.outgoing(message)).await);
        }
        let count = acks.len();
        // One deadline for the window: a killed server leaves every ack of it open.
        let deadline = Instant::now() + ACK_LIMIT;
        let mut acks = acks.into_iter();
        let mut sent = Vec::with_capacity(batch.len());
        for (message, ack) in batch.into_iter().zip(&mut acks) {
            sent.push((message, is_stored(ack, deadline).await));
        }
        for ack in acks {
            // Nobody relies on a repetition: one that was not stored is no loss.
            is_stored(ack, deadline).await;
        }
        self.conclude(sent);
        count
    }

    /// Notes what was stored and keeps the rest. A key has several messages in flight only while one connection keeps their order: what
    /// went before a stored message of the key is stored as well, however late its ack is.
    fn conclude(&mut self, sent: Vec<(Published, bool)>) {
        let mut last_stored: HashMap<String, u64> = HashMap::new();
        for (message, _) in sent.iter().filter(|(_, stored)| *stored) {
            last_stored.insert(message.key.clone(), message.n);
        }
        for (message, _) in sent {
            if last_stored.get(&message.key).is_some_and(|last| message.n <= *last) {
                self.note(message);
            } else {
                self.unsure.push(message);
            }
        }
    }

    fn draw(&mut self, burst: usize, batch: &mut Vec<Published>, repeated: &mut Vec<Published>) {
        let mut in_flight: HashMap<usize, usize> = HashMap::new();
        let unsure: HashSet<String> = batch.iter().map(|message| message.key.clone()).collect();
        for _ in batch.len()..self.plan.window {
            if self.random.chance(self.plan.duplicates) {
                repeated.extend(self.earlier());
                continue;
            }
            let place = self.zipf.draw(&mut self.random);
            let key = format!("k{place}");
            let Some(number) = self.numbers.get_mut(place) else { continue };
            let others = in_flight.entry(place).or_default();
            if *others < burst && !unsure.contains(&key) {
                *others += 1;
                *number += 1;
                batch.push(Published { id: format!("{}-{key}-{number}", self.plan.prefix), key, n: *number });
            }
        }
    }

    /// One that was acknowledged before: half of them just now, half of them at any time.
    fn earlier(&mut self) -> Option<Published> {
        let count = self.remembered.len() as u64;
        let back = if self.random.chance(0.5) { count.min(100) } else { count };
        let place = count - self.random.between(0, back) - u64::from(count > 0);
        self.remembered.get(usize::try_from(place).ok()?).cloned()
    }

    fn outgoing(&self, message: &Published) -> Outgoing {
        let subject = format!("{}.{}", self.plan.prefix, message.key);
        // By its number, so that a repetition is the same message.
        let fails = u64::from(Random::new(message.n).chance(self.plan.failing));
        failing_message(subject, &message.id, message.n, fails, self.plan.payload_bytes)
    }

    fn note(&mut self, message: Published) {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(message.clone());
        self.checker.lock().unwrap_or_else(PoisonError::into_inner).published(message);
    }
}

/// Whether JetStream says that it has stored the message.
async fn is_stored(ack: Result<PublishAckFuture>, deadline: Instant) -> bool {
    match ack {
        Ok(ack) => tokio::time::timeout_at(deadline.into(), ack.into_future()).await.is_ok_and(|ack| ack.is_ok()),
        Err(_) => false,
    }
}
