//! What the core's event loop costs: `cargo bench --package pelton-core --bench core`.
//!
//! Everything that a message is to the core, from its delivery to the acknowledgement of its event, with a shell that performs each action at once and does nothing
//! itself.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark ends by panicking")]

use std::sync::Arc;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pelton_core::batch::StreamIdentity;
use pelton_core::effects::{Event, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, Version};
use pelton_core::message::Message;
use pelton_core::policy::Policy;
use pelton_core::time::Now;
use pelton_core::{Action, Arrival, Core, Input, JobResult, Recovered, Settings, Start};

/// Messages of one pass.
const MESSAGES: u64 = 4_096;

fn main() {
    divan::main();
}

/// A core with one consumer that stands at the begin of its stream.
fn core() -> (Core, ConsumerId, u64) {
    let mut core = Core::new(Settings::default(), Recovered::default());
    let consumer = core.register("bench");
    tell(&mut core, Input::Start { consumer, policy: Box::new(Policy::default()), start: Start::All });
    let mut wanted = None;
    while let Some(action) = core.poll_action() {
        if let Action::Position { generation, .. } = action {
            wanted = Some(generation);
        }
    }
    let generation = wanted.unwrap();
    tell(&mut core, Input::Positioned { consumer, generation, stream: (*stream()).clone(), last_sequence: MESSAGES });
    (core, consumer, generation)
}

fn tell(core: &mut Core, input: Input) {
    core.handle(Now { tick_ms: 1, wall_ms: 1 }, input);
}

fn stream() -> Arc<StreamIdentity> {
    Arc::new(StreamIdentity { name: "S".into(), created_ns: 1 })
}

fn arrivals(keys: u64) -> Vec<Arrival> {
    let stream = stream();
    let message = |sequence: u64| Message {
        id: sequence.to_string().into(),
        mark: Some(IdHash(u128::from(sequence))),
        subject: "in.k".into(),
        key: Some(format!("k{}", sequence % keys).into()),
        headers: Vec::new(),
        payload: Bytes::from_static(&[b'x'; 256]),
        sequence,
        published_at_ms: 1,
        stream: Arc::clone(&stream),
        entity_version: None,
    };
    (1..=MESSAGES).map(|n| Arrival { message: Arc::new(message(n)), unreadable: None }).collect()
}

fn applied() -> JobResult {
    let event = Event {
        id: "e".into(),
        subject: "out.k".into(),
        key: Some("k".into()),
        headers: Vec::new(),
        payload: Bytes::from_static(b"x"),
    };
    JobResult::Applied {
        version: Version([1; 32]),
        writes: WriteSet { state: Vec::new(), events: vec![Arc::new(event)] },
    }
}

/// Performs what the core asks for until it asks for nothing more.
fn run(core: &mut Core) {
    while let Some(action) = core.poll_action() {
        match action {
            Action::Execute(run) => {
                let results = run.jobs.iter().map(|_| applied()).collect();
                tell(core, Input::RunEnded { consumer: run.consumer, lane: run.lane, results, busy_us: 10 });
            }
            Action::Commit(batch) => {
                black_box(batch);
                tell(core, Input::Committed);
            }
            Action::Publish { row, .. } => tell(core, Input::Acknowledged(vec![row])),
            other => _ = black_box(other),
        }
    }
}

#[divan::bench(args = [1, 1_000])]
fn event_loop(bencher: Bencher, keys: u64) {
    bencher.counter(ItemsCount::new(MESSAGES)).with_inputs(|| (core(), arrivals(keys))).bench_values(
        |((mut core, consumer, generation), arrivals)| {
            tell(&mut core, Input::Delivered { consumer, generation, arrivals });
            run(&mut core);
            core
        },
    );
}
