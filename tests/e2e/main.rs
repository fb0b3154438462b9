//! End-to-end tests: the real binary, a real nats-server, real components. Each test has a server and a host of its own.

mod harness;
mod stage;
