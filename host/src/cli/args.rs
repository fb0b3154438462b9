//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::messages::{DeadLetters, Parked};
use super::versions;

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
    Status(Ask),
    /// List the consumers, pause or resume one.
    Consumers(Consumers),
    /// Say in words why a key of a consumer is where it is.
    Explain {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The ordering key.
        key: String,
    },
    /// Look at the manifests and components and do what follows, or only say what that would be.
    Deploy(versions::Deploy),
    /// List what served a consumer and what was refused.
    Versions(versions::Versions),
    /// Bring back the version of a consumer that served before.
    Rollback(versions::Rollback),
    /// Messages that are parked: list, show, release, edit, drop or export them.
    Parked(Parked),
    /// Messages that were given up: list, show, replay, drop or export them.
    DeadLetters(DeadLetters),
}

#[derive(Args, Debug)]
pub(super) struct Config {
    /// The host's configuration.
    #[arg(long = "config", value_name = "FILE", default_value = "pelton.toml", env = "PELTON_CONFIG")]
    pub(super) file: PathBuf,
}

/// What every command that asks a host takes.
#[derive(Args, Debug)]
pub(super) struct Ask {
    #[command(flatten)]
    pub(super) config: Config,
    /// JSON instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Consumers {
    #[command(subcommand)]
    pub(super) action: Option<ConsumersAction>,
    #[command(flatten)]
    pub(super) list: Ask,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConsumersAction {
    /// List the consumers.
    List(Ask),
    /// Begin no attempt and pull nothing until resumed, also after a restart.
    Pause {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        name: String,
        /// Why, for whoever looks at the status.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a consumer go on that was paused by an operator or by itself, or that is halted.
    Resume {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        name: String,
    },
}
