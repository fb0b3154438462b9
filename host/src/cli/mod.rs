//! The command line. Exit status: 0 ok, 1 failed, 2 usage or invalid configuration.

mod args;
mod commands;
mod dead_letters;
mod many;
mod messages;
mod parked;
mod tables;
mod versions;

pub use commands::main;
