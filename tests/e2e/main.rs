//! End-to-end tests: the real binary, a real nats-server, real components. Each test has a server and a host of its own.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking, also in the functions that it calls")]

mod admin;
mod authors;
mod bad_input;
mod broker;
mod cli;
mod conformance;
mod examples;
mod failures;
mod first_walk;
mod harness;
mod isolation;
mod lifecycle;
mod main_path;
mod operate;
mod operate_dead;
mod operate_input;
mod operate_state;
mod plugin_view;
mod reload;
mod sandbox;
mod sandbox_load;
mod sources;
mod stage;
mod swaps;
mod telemetry;
mod traces;
mod unreadable;
mod versions;
