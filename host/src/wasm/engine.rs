//! How wasmtime is set up. One engine for the whole host: an engine of its own for each plug-in would cost gigabytes.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::growth::TABLE_ELEMENTS_MAX;

/// What the sandbox is dimensioned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Attempts that may run at once: the number of executor threads.
    pub instances_max: u32,
    /// Instances that may be kept between attempts, for consumers that ask for it.
    pub kept_max: u32,
    /// The largest `limits.memory_bytes` that a manifest may ask for, in bytes.
    pub memory_bytes_max: usize,
    /// The largest component that is loaded, in bytes.
    pub component_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instances_max: 4,
            kept_max: 4 * super::KEPT_PER_THREAD,
            memory_bytes_max: 256 << 20,
            component_bytes_max: 64 << 20,
        }
    }
}

/// The sandbox can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// wasmtime refused the configuration or couldn't reserve its address space.
    #[error(
        "the sandbox can't be set up for {instances_max} instances of up to {memory_bytes_max} bytes: {problem}; \
         lower the number of executors, or lift the limit on virtual memory (ulimit -v) if there is one"
    )]
    Engine {
        /// [`Settings::instances_max`].
        instances_max: u32,
        /// [`Settings::memory_bytes_max`].
        memory_bytes_max: usize,
        /// In wasmtime's words.
        problem: String,
    },
    /// A thread can't be started: that of the epoch clock, or one that compiles.
    #[error("a thread of the sandbox can't be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// Native stack that a guest may use.
const WASM_STACK_BYTES: usize = 512 << 10;
/// The stack that a thread needs which calls [`super::Sandbox::run`] or [`super::Sandbox::load`], in bytes: the guest's, and a margin
/// for the host functions that it calls at its deepest. With less the process would be aborted by a plug-in that recurses.
pub const EXECUTOR_STACK_BYTES: usize = WASM_STACK_BYTES + (1536 << 10);

/// Core instances of one component; a Rust component has about 3, a Go one 5.
const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
/// Linear memories of one component; all but exotic ones have 1.
const MEMORIES_PER_COMPONENT: u32 = 2;
/// Tables of one component: the module's own and those of the adapters.
const TABLES_PER_COMPONENT: u32 = 6;

/// What stays with the process of a slot after an attempt, and is cleaned with a copy rather than given back, in bytes. Faults and TLB
/// shootdowns of memory that is given back cost more than all else: measured with a Rust guest, an attempt took 8.3 µs with these
/// sizes and 22 µs with none.
struct KeepResident {
    memory_bytes: usize,
    table_bytes: usize,
}

impl KeepResident {
    /// Only the pages that were touched are cleaned.
    const WITH_PAGEMAP_SCAN: Self = Self { memory_bytes: 1 << 20, table_bytes: 64 << 10 };
    /// Linux before 6.7 can't tell which pages were touched: all that is kept is cleaned, so that keeping much costs more (37 µs with the
    /// sizes above) than it saves (20 µs with these).
    const WITHOUT: Self = Self { memory_bytes: 64 << 10, table_bytes: 4 << 10 };
}

/// The engine for these settings.
pub(super) fn engine(settings: &Settings) -> Result<Engine, SandboxError> {
    Engine::new(&config(settings)).map_err(|error| SandboxError::Engine {
        instances_max: settings.instances_max,
        memory_bytes_max: settings.memory_bytes_max,
        problem: super::ended::chain(&error),
    })
}

fn config(settings: &Settings) -> Config {
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)))
        .memory_init_cow(true)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Everything is synchronous, on threads of our own; what concurrency needs would cost every attempt microseconds.
        .concurrency_support(false)
        // What plug-ins don't need is not there to be attacked. GC, threads, stack switching and the component model's async are
        // not even compiled in.
        .wasm_memory64(false)
        .wasm_relaxed_simd(false);
    config
}

fn pool(settings: &Settings) -> PoolingAllocationConfig {
    let instances = instances(settings).saturating_add(settings.kept_max);
    let keep = match PoolingAllocationConfig::is_pagemap_scan_available() {
        true => KeepResident::WITH_PAGEMAP_SCAN,
        false => KeepResident::WITHOUT,
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memories_per_module(1)
        .max_memory_size(settings.memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(keep.memory_bytes)
        .table_keep_resident(keep.table_bytes)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Instances that there can be at once: those of the executors, and the trial instance of a plug-in that is being loaded.
pub(super) fn instances(settings: &Settings) -> u32 {
    settings.instances_max.max(1).saturating_add(1)
}
