//! Tests of the state machine: rules one by one, and all of them at once in a small world with faults.

mod bench;
mod chance;
mod durable;
mod rules_consumers;
mod rules_holds;
mod rules_lanes;
mod rules_limits;
mod rules_parking;
mod rules_probation;
mod rules_releases;
mod rules_rewind;
mod rules_versions;
mod simulation;
mod streams;
mod violation;
mod world;
mod world_actions;
mod world_checks;
mod world_operator;
mod world_policy;
mod world_relay;
