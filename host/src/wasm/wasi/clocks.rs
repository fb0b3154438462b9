//! `wasi:clocks`: time is that of the attempt, so that the same attempt sees the same time again.
//!
//! The wall clock stands still at the transaction's `now_ms`. The monotonic clock starts at 0 and moves on by a microsecond with each
//! reading: it rises as it must, and a guest that spins until some time has passed comes to an end.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};

use super::io::{LATER, READY};
use crate::wasm::attempt::Attempt;

/// The resolution of the monotonic clock and what a reading takes, in nanoseconds.
const READING_NS: u64 = 1_000;
/// The resolution of the wall clock, in nanoseconds.
const WALL_RESOLUTION_NS: u32 = 1_000_000;

impl wall_clock::Host for Attempt {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now_ms = self.transaction.now_ms();
        let nanoseconds = u32::try_from(now_ms % 1_000).unwrap_or(0) * WALL_RESOLUTION_NS;
        Ok(wall_clock::Datetime { seconds: now_ms / 1_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: WALL_RESOLUTION_NS })
    }
}

impl monotonic_clock::Host for Attempt {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.wasi.monotonic_ns += READING_NS;
        Ok(self.wasi.monotonic_ns)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(READING_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(if when <= self.wasi.monotonic_ns { READY } else { LATER }))
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(if duration == 0 { READY } else { LATER }))
    }
}
