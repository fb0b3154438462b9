//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs message consumers, written as WebAssembly components, on NATS JetStream.
#[derive(Debug, Parser)]
#[command(name = "pelton", version, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the host until SIGTERM or SIGINT; a second signal stops it at once.
    Run(Config),
    /// Check pelton.toml, all manifests and their components' files, and report every mistake.
    Check(Config),
    /// Show what a running host is doing.
    Status {
        #[command(flatten)]
        config: Config,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// List the messages that were given up, or show one.
    DeadLetters {
        #[command(flatten)]
        config: Config,
        /// Only those of this consumer.
        consumer: Option<String>,
        /// Show this one whole: its sequence in the consumer's stream.
        #[arg(requires = "consumer")]
        sequence: Option<u64>,
        /// At most so many, by consumer and sequence.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct Config {
    /// The host's configuration.
    #[arg(long = "config", value_name = "FILE", default_value = "pelton.toml", env = "PELTON_CONFIG")]
    pub(super) file: PathBuf,
}
