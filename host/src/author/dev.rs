//! `pelton dev`: the host as `pelton run` runs it, with somebody who builds the plug-in when its source changes and prints what every message does.
//!
//! The swap is the deployer's: a build writes the component, and the running host takes it like any other.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;

use super::build::compile;
use super::print::{Printer, lines};
use super::project::Project;
use super::watch::Source;
use crate::app::{self, End};
use crate::config::{HostConfig, NatsServer};
use crate::observe;
use crate::telemetry::{self, Format};
use crate::wasm::EXECUTOR_STACK_BYTES;

/// What the host itself says meanwhile: what concerns the plug-in. Its lines are printed with its messages.
const LOG: &str = "warn,pelton::deploy=info,plugin=off";

/// Runs until a signal ends it.
///
/// # Errors
/// [`super::BadInput`] or a [`crate::config::Report`] if the directory can't be used; or what ends the host.
pub fn dev(directory: &Path) -> anyhow::Result<End> {
    let file = directory.join("pelton.toml");
    let config = HostConfig::load(&file)?;
    let project = Project::open(directory)?;
    telemetry::init(LOG, Format::Text)?;
    let printer = Arc::new(Printer::default());
    greet(&printer, &config, &project);
    let source = Source::watch(directory).context("watching the source")?;
    if let Err(error) = compile(directory) {
        printer.say(&format!("{error:#}"));
    }
    let (observer, observations) = observe::channel();
    let for_builds = Arc::clone(&printer);
    // Both threads end with the program: what they do meanwhile leaves nothing behind that a restart would not find.
    thread::Builder::new()
        .name("builds".into())
        .spawn(move || source.build_for_ever(|text| for_builds.say(text)))
        .context("starting the thread that builds")?;
    let for_messages = Arc::clone(&printer);
    let printing = thread::Builder::new()
        .name("printer".into())
        .spawn(move || {
            while let Some(observed) = observations.next() {
                for_messages.print(&lines(&observed));
                let missed = observations.missed();
                if missed > 0 {
                    for_messages.say(&format!("{missed} messages came too fast to be shown"));
                }
            }
        })
        .context("starting the thread that prints")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("io")
        .thread_stack_size(EXECUTOR_STACK_BYTES)
        .build()?;
    let end = runtime.block_on(app::run_observed(config, Some(observer)));
    runtime.shutdown_background();
    // The executors have ended, and with them what is told; what they told last is printed.
    _ = printing.join();
    if end.is_ok() {
        printer.say("stopped");
    }
    end
}

fn greet(printer: &Printer, config: &HostConfig, project: &Project) {
    let names: Vec<&str> = project.manifests.iter().map(|manifest| manifest.name.as_str()).collect();
    let server = match &config.nats.server {
        NatsServer::Embedded { port: 0, .. } => "a NATS server of its own, on any free port".to_owned(),
        NatsServer::Embedded { port, .. } => format!("a NATS server of its own on nats://127.0.0.1:{port}"),
        NatsServer::External { urls } => urls.join(", "),
    };
    printer.say(&format!("{} with {server}; Ctrl-C ends it", names.join(", ")));
}
