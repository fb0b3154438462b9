//! Does, step by step, what its payload says. Needed by the test that compares the sdk's in-memory host with the real sandbox; see `script.rs`.

mod script;

pelton_sdk::consumer!(script::handle);
