//! What an attempt costs in the sandbox, without broker, disk and driver: `cargo bench --package pelton --bench attempt -- COMPONENT [ATTEMPTS]` with the
//! component of guests/order-counter. One line of JSON comes out; `cargo xtask bench attempt` takes it from there.
//!
//! An attempt without a key ends before its first host call: that is the instance and the call of the handler. One with a key reads, writes and emits: what it costs
//! more is three host calls and the work between them.

#![allow(missing_docs, reason = "a program of its own")]

mod process;

use std::hint::black_box;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use pelton::wasm::{EXECUTOR_STACK_BYTES, Identity, LoadTerms, Plugin, RunLimits, Sandbox, Settings};
use pelton_core::batch::StreamIdentity;
use pelton_core::effects::{Scope, Space};
use pelton_core::grants::Grants;
use pelton_core::ids::ConsumerId;
use pelton_core::message::Message;
use pelton_core::transaction::{EffectLimits, ReadError, StateView, Terms, Transaction};

use self::process::{arguments, cpu_seconds};

const MEMORY_BYTES: usize = 64 << 20;
const ATTEMPTS: u64 = 100_000;
/// Half a second or so of computing.
const PLAIN_STEPS: u64 = 400_000_000;

/// The state of a key that was counted before.
const STATE: &[u8] =
    br#"{"count":7,"last":7,"chain":14695981039346656037,"pad":"--------------------------------------"}"#;

struct OneValue;

impl StateView for OneValue {
    fn get(&self, _: &Scope, _: Space, _: &str, _: u64) -> Result<Option<Bytes>, ReadError> {
        Ok(Some(Bytes::from_static(STATE)))
    }

    fn range(&self, _: &Scope, _: &str, _: Bound<&str>, _: usize, _: u64) -> Result<Vec<(Box<str>, Bytes)>, ReadError> {
        Ok(Vec::new())
    }
}

/// Everything that attempts share.
struct Bench {
    sandbox: Sandbox,
    plugin: Plugin,
    limits: RunLimits,
    identity: Arc<Identity>,
    terms: Arc<Terms>,
    view: Arc<dyn StateView>,
}

impl Bench {
    fn new(component: &[u8]) -> Result<Self> {
        let sandbox = Sandbox::new(&Settings { instances_max: 2, ..Settings::default() })?;
        let effects = EffectLimits::default();
        let identity = Arc::new(Identity { consumer: "bench".into(), ..Identity::default() });
        let grants = Grants { emit: vec!["out.>".into()] };
        let terms = LoadTerms {
            identity: Arc::clone(&identity),
            grants: grants.clone(),
            keyed_state: true,
            memory_bytes: MEMORY_BYTES,
        };
        let plugin = sandbox.load(component, &terms)?;
        let terms = Terms {
            grants,
            limits: effects,
            mark_ttl_ms: 1,
            consumer_name: "bench".into(),
            shared_state: false,
            version: pelton_core::ids::Version([1; 32]).to_string().into(),
        };
        Ok(Self {
            sandbox,
            plugin,
            limits: RunLimits::new(1_000, MEMORY_BYTES, &effects),
            identity,
            terms: Arc::new(terms),
            view: Arc::new(OneValue),
        })
    }

    /// One attempt; gives how many effects it had.
    fn attempt(&self, message: &Arc<Message>) -> Result<usize> {
        let view = Arc::clone(&self.view);
        let transaction = Transaction::new(view, Arc::clone(&self.terms), ConsumerId(1), Arc::clone(message), 1);
        let ended = self.sandbox.run(&self.plugin, &self.limits, &self.identity, transaction, 1, 1)?;
        Ok(ended.map_or(0, |writes| writes.state.len() + writes.events.len()))
    }

    /// Makes so many attempts on each of `threads` threads; gives attempts a second of wall time, and CPU microseconds an attempt.
    fn measure(&self, threads: u32, attempts: u64, key: Option<&str>) -> Result<(f64, f64)> {
        let message = Arc::new(message(key));
        let wanted = if key.is_some() { 2 } else { 0 };
        let (cpu_before, began) = (cpu_seconds()?, Instant::now());
        std::thread::scope(|scope| {
            let spawn = || {
                let thread = std::thread::Builder::new().stack_size(EXECUTOR_STACK_BYTES);
                thread.spawn_scoped(scope, || -> Result<()> {
                    for _ in 0..attempts {
                        ensure!(self.attempt(&message)? == wanted, "an attempt had other effects than it should have");
                    }
                    Ok(())
                })
            };
            let running = (0..threads).map(|_| spawn()).collect::<std::io::Result<Vec<_>>>()?;
            running.into_iter().try_for_each(|thread| thread.join().ok().context("an attempt panicked")?)
        })?;
        let all = (attempts * u64::from(threads)) as f64;
        Ok((all / began.elapsed().as_secs_f64(), (cpu_seconds()? - cpu_before) * 1e6 / all))
    }
}

/// How much more two threads get done than one when each only computes: what this machine has to give at this moment.
fn plain_two_threads() -> Result<f64> {
    let compute = || {
        let began = Instant::now();
        (0..PLAIN_STEPS)
            .fold(1_u64, |state, step| black_box(state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(step)));
        began.elapsed().as_secs_f64()
    };
    let one = compute();
    let two = std::thread::scope(|scope| {
        let threads = [scope.spawn(compute), scope.spawn(compute)];
        threads.into_iter().map(|thread| thread.join().ok()).sum::<Option<f64>>()
    });
    Ok(2.0 * one / (two.context("a thread panicked")? / 2.0))
}

fn message(key: Option<&str>) -> Message {
    let pad = "x".repeat(220);
    Message {
        id: "k7-8".into(),
        mark: None,
        subject: "bench0.k7".into(),
        key: key.map(Into::into),
        headers: vec![("Nats-Msg-Id".into(), "k7-8".into())],
        payload: Bytes::from(format!("{{\"n\":8,\"state_bytes\":100,\"pad\":\"{pad}\"}}")),
        sequence: 8,
        published_at_ms: 1,
        stream: Arc::new(StreamIdentity { name: "BENCH-0".into(), created_ns: 1 }),
        entity_version: None,
    }
}

fn main() -> Result<()> {
    let mut arguments = arguments();
    let component = PathBuf::from(arguments.next().context("the path of order-counter's component is missing")?);
    let attempts = arguments.next().map(|text| text.parse()).transpose()?.unwrap_or(ATTEMPTS);
    let bytes = std::fs::read(&component).with_context(|| format!("can't read {}", component.display()))?;
    let bench = Bench::new(&bytes)?;
    // The first attempts pay for what all later ones find ready.
    bench.measure(1, attempts / 10 + 1, Some("k7"))?;
    let (_, empty_us) = bench.measure(1, attempts, None)?;
    let (one, full_us) = bench.measure(1, attempts, Some("k7"))?;
    let (two, two_us) = bench.measure(2, attempts, Some("k7"))?;
    println!(
        "{{\"instance_and_call_cpu_us\":{empty_us:.3},\"attempt_cpu_us\":{full_us:.3},\"attempts_per_second\":{one:.0},\
         \"two_threads_cpu_us\":{two_us:.3},\"two_threads_ratio\":{:.3},\"plain_two_threads_ratio\":{:.3}}}",
        two / one,
        plain_two_threads()?
    );
    Ok(())
}
