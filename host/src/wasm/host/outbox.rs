//! `pelton:consumer/outbox`.

use pelton_core::transaction::EmitRefused;

use crate::wasm::attempt::Attempt;
use crate::wasm::generated::pelton::consumer::outbox::{EmitError, Event, Host};

impl Host for Attempt {
    fn emit(&mut self, event: Event) -> wasmtime::Result<Result<String, EmitError>> {
        let Event { subject, payload, headers, key } = event;
        let emitted = self.transaction.emit(&subject, payload.into(), &headers, key.as_deref())?;
        Ok(emitted.map_err(|refused| match refused {
            EmitRefused::InvalidSubject(why) => EmitError::InvalidSubject(why),
            EmitRefused::InvalidHeader(why) => EmitError::InvalidHeader(why),
            EmitRefused::NotGranted(why) => EmitError::NotGranted(why),
        }))
    }
}
