//! What wit-bindgen makes of `wit/consumer.wit`. Owns every call that crosses the component's border.
//!
//! It is public for the sake of the [`consumer!`](crate::consumer) macro only, and hidden from the docs: the generated names follow the
//! generator's version, the sdk's own names don't.

#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "generated: the canonical ABI is made of raw pointers, and the WIT file holds the documentation"
)]

wit_bindgen::generate!({
    path: "../wit",
    world: "pelton:consumer/consumer",
    pub_export_macro: true,
    export_macro_name: "export_handler",
    default_bindings_module: "::pelton_sdk::bindings",
});
