//! Rust types and traits of the contract in `wit/`, made by `bindgen!`. Nothing outside this module's parent sees them.

#![allow(unreachable_pub, missing_docs, reason = "generated code")]
#![allow(clippy::all, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "pelton:consumer/consumer",
    // The handler's message is lowered straight from the core's, without a copy of its own.
    ownership: Borrowing { duplicate_if_necessary: true },
    // A host call can end the attempt: a limit that is passed never returns to the guest.
    imports: { default: trappable },
});
