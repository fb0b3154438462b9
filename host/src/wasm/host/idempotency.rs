//! `pelton:consumer/idempotency`.

use crate::wasm::attempt::Attempt;
use crate::wasm::generated::pelton::consumer::idempotency::Host;

impl Host for Attempt {
    fn seen(&mut self, id: String) -> wasmtime::Result<bool> {
        Ok(self.transaction.seen(&id)?)
    }

    fn mark(&mut self, id: String, ttl_ms: Option<u64>) -> wasmtime::Result<()> {
        Ok(self.transaction.mark(&id, ttl_ms)?)
    }
}
