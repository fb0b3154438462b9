//! The command line. Exit status: 0 ok, 1 failed, 2 usage or invalid configuration.

mod args;
mod author;
mod commands;
mod dead_letters;
mod many;
mod messages;
mod parked;
mod tables;

pub use commands::main;
