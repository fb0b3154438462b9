//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::author::{Build, Dev, Invoke, New, Test};
use super::doctor::Doctor;
use super::messages::{DeadLetters, Parked};
use super::rewind::{Outbox, Rewind};
use super::state::StateAction;
use super::top::Top;
use super::versions;

/// Runs message consumers, written as WebAssembly components, on NATS JetStream.
#[derive(Debug, Parser)]
#[command(name = "pelton", version, propagate_version = true)]
#[command(
    after_help = "Exit status: 0 ok, 1 failed, 2 usage or invalid configuration. A refusal of a running host ends with its code in brackets."
)]
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
    /// Show the status of a running host again and again, sorted as you like.
    Top(Top),
    /// List the consumers; show, pause, resume, rewind or purge one.
    Consumers(Consumers),
    /// What plug-ins keep, per consumer and ordering key: get, list, set, delete, export and import it.
    State {
        #[command(subcommand)]
        action: StateAction,
    },
    /// List events that were committed and wait to be published.
    Outbox(Outbox),
    /// Look at the server, the streams, the disk and the limits for what endangers the guarantees.
    Doctor(Doctor),
    /// Print the configuration that is in effect, the host's and each consumer's, with where every value is from.
    Config(Settings),
    /// Print a script that completes commands and options: source it, or put it where the shell looks for completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
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
    /// Make a directory with a plug-in that builds, its manifest and its cases.
    New(New),
    /// Build the plug-in of a directory, and say whether the host would take it.
    Build(Build),
    /// Run the host on a plug-in under development: build and swap it when its source changes, and print what every message does.
    Dev(Dev),
    /// Hand one message to a component, without a broker, and print what it does as JSON.
    ///
    /// The message is a JSON object: "subject", and if wanted "headers", one of "json", "payload" and "payload_base64", "id", "key", "sequence" and
    /// "published_at_ms". Or it is raw, with --payload and --subject. Exit status: 0 applied, 1 the handler failed, 2 it was not called, because something
    /// given can't be used.
    Invoke(Invoke),
    /// Run the cases of a plug-in: DIR/tests/*.toml and *.json.
    Test(Test),
    /// Messages that are parked: list, show, release, edit, drop or export them.
    Parked(Parked),
    /// Messages that were given up: list, show, replay, drop or export them.
    DeadLetters(DeadLetters),
}

#[derive(Args, Debug)]
pub(super) struct Config {
    /// The host's configuration.
    #[arg(
        long = "config",
        value_name = "FILE",
        default_value = "pelton.toml",
        env = "PELTON_CONFIG",
        hide_env_values = true
    )]
    pub(super) file: PathBuf,
}

/// What `pelton config` takes.
#[derive(Args, Debug)]
pub(super) struct Settings {
    #[command(flatten)]
    pub(super) config: Config,
    /// Only the settings that are no defaults.
    #[arg(long)]
    pub(super) changed: bool,
    /// JSON instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

/// Which host is asked, and as whom.
#[derive(Args, Debug)]
pub(super) struct Reach {
    #[command(flatten)]
    pub(super) config: Config,
    /// Where the host's admin server is, instead of what the configuration says.
    #[arg(long, value_name = "HOST:PORT", env = "PELTON_ADMIN_ADDRESS", hide_env_values = true)]
    pub(super) address: Option<String>,
    /// The file with the token that the host asks for, instead of PELTON_ADMIN_TOKEN and what the configuration says.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// What every command that asks a host takes.
#[derive(Args, Debug)]
pub(super) struct Ask {
    #[command(flatten)]
    pub(super) reach: Reach,
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
    /// Show all that is known of one.
    Show {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        name: String,
    },
    /// Put a consumer's cursor back, so that messages are handled again; or forward with --skip.
    Rewind(Rewind),
    /// Forget all that is left of a consumer without a manifest: cursor, state, processed ids, parked messages, dead letters.
    Purge {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        name: String,
        /// Also if nobody can be asked.
        #[arg(long)]
        yes: bool,
    },
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
