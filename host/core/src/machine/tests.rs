//! Tests of the state machine: rules one by one, and all of them at once in a small world with faults.

mod chance;
mod durable;
mod simulation;
mod streams;
mod violation;
mod world;
mod world_actions;
mod world_checks;
