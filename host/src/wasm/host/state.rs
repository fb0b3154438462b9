//! `pelton:consumer/state`.

use crate::wasm::attempt::Attempt;
use crate::wasm::generated::pelton::consumer::state::{Entry, Host, Page};

impl Host for Attempt {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.transaction.get(&key)?.map(Vec::from))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> wasmtime::Result<()> {
        Ok(self.transaction.set(&key, value.into(), ttl_ms)?)
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        Ok(self.transaction.delete(&key)?)
    }

    fn list(&mut self, prefix: String, after: Option<String>, limit: u32) -> wasmtime::Result<Page> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let page = self.transaction.list(&prefix, after.as_deref(), limit)?;
        let entries = page.entries.into_iter().map(|(key, value)| Entry { key: key.into(), value: value.into() });
        Ok(Page { entries: entries.collect(), next: page.next.map(String::from) })
    }
}
