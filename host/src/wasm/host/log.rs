//! `pelton:consumer/log`.

use crate::wasm::attempt::Attempt;
use crate::wasm::generated::pelton::consumer::log::{Host, Level};

impl Host for Attempt {
    fn log(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let level = match level {
            Level::Trace => tracing::Level::TRACE,
            Level::Debug => tracing::Level::DEBUG,
            Level::Info => tracing::Level::INFO,
            Level::Warn => tracing::Level::WARN,
            Level::Error => tracing::Level::ERROR,
        };
        Attempt::log(self, level, &message, &fields);
        Ok(())
    }
}
