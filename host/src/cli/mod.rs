//! The command line. Exit status: 0 ok, 1 failed, 2 usage or invalid configuration.

mod args;
mod author;
mod commands;
mod dead_letters;
mod doctor;
mod lists;
mod many;
mod messages;
mod parked;
mod rewind;
mod settings;
#[cfg(test)]
mod snapshot;
mod state;
mod tables;
mod top;
mod versions;

pub use commands::main;
