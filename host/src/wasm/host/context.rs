//! `pelton:consumer/context`.

use crate::wasm::attempt::Attempt;
use crate::wasm::generated::pelton::consumer::context::Host;

impl Host for Attempt {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(self.transaction.now_ms())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.attempt)
    }

    fn time_left_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.time_left().as_millis()).unwrap_or(u64::MAX))
    }

    fn consumer(&mut self) -> wasmtime::Result<String> {
        Ok(self.identity.consumer.to_string())
    }

    fn version(&mut self) -> wasmtime::Result<String> {
        Ok(self.version.to_string())
    }

    fn config(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.identity.config.get(&name).cloned())
    }
}
