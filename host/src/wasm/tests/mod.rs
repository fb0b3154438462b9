//! The sandbox against plug-ins written by hand in text form, each doing one thing that a hostile or careless plug-in may do.
//!
//! After every case the same sandbox must still serve: [`Setup::run`] sees to that.

mod calls;
mod cast;
mod cost;
mod crowd;
mod guest;
mod hostile;
mod load;
mod warm;
mod wasi;

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use pelton_core::batch::StreamIdentity;
use pelton_core::effects::{Scope, Space, WriteSet};
use pelton_core::grants::Grants;
use pelton_core::ids::{ConsumerId, Version};
use pelton_core::message::{Failure, Message};
use pelton_core::transaction::{EffectLimits, ReadError, StateView, Terms, Transaction};

use super::*;

static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let settings = Settings {
        instances_max: 4,
        kept_max: 4 * KEPT_PER_THREAD,
        memory_bytes_max: 64 << 20,
        component_bytes_max: 1 << 20,
    };
    Sandbox::new(&settings).unwrap()
});

/// A view held in a map, one with so many entries that they are made as they are read, or one whose store is broken.
#[derive(Default)]
struct MapView {
    entries: BTreeMap<Box<str>, Bytes>,
    /// Entries "000000", "000001", … behind those of the map.
    numbered: usize,
    broken: bool,
}

impl MapView {
    fn check(&self) -> Result<(), ReadError> {
        if self.broken { Err(ReadError("the disk is gone".into())) } else { Ok(()) }
    }
}

impl StateView for MapView {
    fn get(&self, _: &Scope, space: Space, key: &str, _: u64) -> Result<Option<Bytes>, ReadError> {
        self.check()?;
        Ok(if space == Space::User { self.entries.get(key).cloned() } else { None })
    }

    fn range(
        &self,
        _: &Scope,
        prefix: &str,
        from: Bound<&str>,
        limit: usize,
        _: u64,
    ) -> Result<Vec<(Box<str>, Bytes)>, ReadError> {
        self.check()?;
        if self.numbered > 0 {
            let first = match from {
                Bound::Excluded(after) => after.parse::<usize>().unwrap() + 1,
                Bound::Included(first) => first.parse().unwrap(),
                Bound::Unbounded => 0,
            };
            let numbers = first..self.numbered.min(first + limit);
            return Ok(numbers.map(|n| (format!("{n:06}").into(), Bytes::from_static(b"12345678"))).collect());
        }
        let entries = self.entries.range::<str, _>((from, Bound::Unbounded)).filter(|(key, _)| key.starts_with(prefix));
        Ok(entries.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

/// What the pool of a sandbox has given out.
#[derive(Debug, Default, PartialEq, Eq)]
struct InUse {
    instances: u64,
    memories: usize,
    tables: usize,
}

impl Sandbox {
    fn in_use(&self) -> InUse {
        let metrics = self.engine.pooling_allocator_metrics().unwrap();
        let instances = metrics.core_instances() + metrics.component_instances();
        InUse { instances, memories: metrics.memories(), tables: metrics.tables() }
    }

    /// What the pool keeps in memory of slots that nobody uses, in bytes.
    fn kept_bytes(&self) -> usize {
        let metrics = self.engine.pooling_allocator_metrics().unwrap();
        metrics.unused_memory_bytes_resident() + metrics.unused_table_bytes_resident()
    }
}

/// What an attempt of a test runs with.
struct Setup {
    entries: Vec<(String, Vec<u8>)>,
    numbered: usize,
    broken: bool,
    payload: &'static [u8],
    effects: EffectLimits,
    timeout_ms: u64,
    memory_bytes: usize,
    config: BTreeMap<String, String>,
    attempt: u32,
    seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            numbered: 0,
            broken: false,
            payload: b"payload",
            effects: EffectLimits::default(),
            timeout_ms: 1_000,
            memory_bytes: 16 << 20,
            config: BTreeMap::new(),
            attempt: 1,
            seed: 42,
        }
    }
}

impl Setup {
    fn identity(&self) -> Arc<Identity> {
        let output = Arc::new(Output::default());
        // What one attempt may write is tested here, not what all of them may.
        output.set_budget(LogBudget { lines_per_second: 100_000, burst: 100_000 });
        Arc::new(Identity { consumer: "tester".into(), config: self.config.clone(), output })
    }

    fn load(&self, component: &[u8]) -> Result<Plugin, LoadError> {
        SANDBOX.load(component, &terms(self.identity()))
    }

    fn transaction(&self) -> Transaction {
        let entries = self.entries.iter().map(|(k, v)| (Box::from(k.as_str()), Bytes::from(v.clone()))).collect();
        let view = MapView { entries, numbered: self.numbered, broken: self.broken };
        let terms = Terms {
            grants: grants(),
            limits: self.effects,
            mark_ttl_ms: 1_000,
            consumer_name: "tester".into(),
            shared_state: false,
            version: Version([1; 32]).to_string().into(),
        };
        Transaction::new(Arc::new(view), Arc::new(terms), ConsumerId(1), message(self.payload), 1_700_000_000_123)
    }

    fn attempt_of(&self, plugin: &Plugin) -> Result<Result<WriteSet, Failure>, ReadError> {
        self.attempt_in(&SANDBOX, plugin)
    }

    fn attempt_in(&self, sandbox: &Sandbox, plugin: &Plugin) -> Result<Result<WriteSet, Failure>, ReadError> {
        let limits = RunLimits::new(self.timeout_ms, self.memory_bytes, &self.effects);
        sandbox.run(plugin, &limits, &self.identity(), self.transaction(), self.attempt, self.seed)
    }

    /// Loads, runs, and checks that the sandbox still serves another plug-in.
    fn run(&self, component: &[u8]) -> Result<WriteSet, Failure> {
        let plugin = self.load(component).unwrap();
        let outcome = self.attempt_of(&plugin).unwrap();
        still_serves();
        outcome
    }
}

/// What a good plug-in leaves.
fn still_serves() {
    let setup = Setup::default();
    let plugin = setup.load(&guest::counter()).unwrap();
    let writes = setup.attempt_of(&plugin).unwrap().unwrap();
    assert_eq!((writes.state.len(), writes.events.len()), (1, 1));
}

fn run(component: &[u8]) -> Result<WriteSet, Failure> {
    Setup::default().run(component)
}

/// The value that the attempt left under `key`.
#[track_caller]
fn value_of(writes: &WriteSet, key: &str) -> Vec<u8> {
    let write = writes.state.iter().find(|write| write.key.as_ref() == key).expect("the key is written");
    write.value.as_ref().expect("a value").bytes.to_vec()
}

fn grants() -> Grants {
    Grants { emit: vec!["out.>".into()] }
}

fn terms(identity: Arc<Identity>) -> LoadTerms {
    LoadTerms { identity, grants: grants(), keyed_state: true, memory_bytes: 16 << 20 }
}

fn message(payload: &'static [u8]) -> Arc<Message> {
    Arc::new(Message {
        id: "m-1".into(),
        mark: None,
        subject: "orders.new".into(),
        key: Some("alice".into()),
        headers: vec![("X-A".into(), "1".into())],
        payload: Bytes::from_static(payload),
        sequence: 7,
        published_at_ms: 1_699_999_999_000,
        stream: Arc::new(StreamIdentity { name: "S".into(), created_ns: 1 }),
        entity_version: None,
    })
}

/// Collects what is logged on this thread while `f` runs.
fn logged<T>(f: impl FnOnce() -> T) -> (T, String) {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(subscriber, f);
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    (result, text)
}
