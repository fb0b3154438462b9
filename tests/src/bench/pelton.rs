//! Pelton as a contestant: the real host with the plug-in order-counter, started over work that waits.

use std::process::Output;

use anyhow::{Context, Result};

use super::figures::Reading;
use super::meter::Meter;
use super::stage::{OUTPUT, Stage};
use super::work::{Work, must_be_right};
use crate::host::{Host, HostOptions};
use crate::manifest::Manifest;
use crate::tools::HostBuild;

/// The plug-in.
pub(crate) const GUEST: &str = "order-counter";

/// How many times the limit of an ordinary start a host with many consumers may take.
const READY_LIMITS: usize = 6;

/// How many attempts an instance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// One: the default.
    Fresh,
    /// Many.
    Reuse,
    /// Many, and some attempts are made twice to see whether that changes anything.
    Audited,
}

impl Isolation {
    /// All of them, in the order in which they are measured.
    pub(crate) const ALL: [Self; 3] = [Self::Fresh, Self::Reuse, Self::Audited];

    /// Its name in a case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reuse => "reuse",
            Self::Audited => "audited",
        }
    }

    /// The line of the manifest that chooses it.
    fn line(self) -> String {
        format!("isolation = \"{}\"", self.name())
    }
}

/// A host's settings.
#[derive(Clone, Debug)]
pub(crate) struct Pelton {
    /// Which binary.
    pub(crate) build: HostBuild,
    /// More of `pelton.toml`.
    pub(crate) host: String,
    /// How instances are used.
    pub(crate) isolation: Isolation,
    /// Lines of the manifest's `[config]`.
    config: String,
}

impl Pelton {
    /// The defaults, with this isolation.
    pub(crate) fn with(isolation: Isolation) -> Self {
        Self { build: HostBuild::Normal, host: String::new(), isolation, config: String::new() }
    }

    /// With the plug-in's handler compiled into the host, in place of the component.
    pub(crate) fn native() -> Self {
        let config = "native = true".to_owned();
        Self { build: HostBuild::Native, config, ..Self::with(Isolation::Fresh) }
    }

    /// The same with more lines of `pelton.toml`.
    pub(crate) fn host(mut self, lines: &str) -> Self {
        self.host.push_str(lines);
        self
    }

    /// A host with a consumer for each of the stage's streams; it is not started.
    ///
    /// # Errors
    /// It can't be built.
    pub(crate) fn prepare(&self, stage: &Stage) -> Result<Host> {
        let options = HostOptions { show_log: false, build: self.build, ..HostOptions::on(&stage.nats.url()) };
        let host = Host::prepare(options.extra(&self.host))?;
        host.guest(GUEST)?;
        for consumer in 0..stage.work.consumers {
            let manifest = Manifest::new(&format!("{GUEST}.wasm"), &Work::stream(consumer), &Work::subjects(consumer));
            let manifest = manifest.top(&self.isolation.line()).emits("out.>").section("[config]", &self.config);
            host.manifest(&Self::consumer(consumer), &manifest)?;
        }
        Ok(host)
    }

    /// The name of a consumer.
    pub(crate) fn consumer(number: u64) -> String {
        format!("bench{number}")
    }

    /// Starts a host that has many consumers to deploy: it may take several times as long as others until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub(crate) async fn start_many(host: &mut Host) -> Result<()> {
        let mut outcome = host.start().await;
        for _ in 1..READY_LIMITS {
            if outcome.is_ok() || host.exited()?.is_some() {
                break;
            }
            outcome = host.ready().await;
        }
        outcome
    }

    /// Why the host can't do this; none if it can.
    ///
    /// # Errors
    /// The host can't be asked.
    pub(crate) fn refusal(&self, stage: &Stage) -> Result<Option<String>> {
        let Output { status, stdout, stderr } = self.prepare(stage)?.run(&["check"])?;
        if status.success() {
            return Ok(None);
        }
        let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
        let line = said.lines().find(|line| line.contains("isolation")).unwrap_or(said.trim());
        Ok(Some(format!("the host refuses {:?}: {}", self.isolation.line(), without_path(line))))
    }

    /// Runs the host over all of the stage's work.
    ///
    /// # Errors
    /// The host does not come up, does not finish, or does something wrong.
    pub(crate) async fn run(&self, stage: &Stage) -> Result<Reading> {
        stage.clear().await?;
        let mut host = self.prepare(stage)?;
        let before = stage.server_cpu_ms()?;
        host.start().await?;
        let events = stage.expected().events();
        stage.wait_events(events, || host.log_tail()).await?;
        let meter = Meter::of(host.pid().context("the host runs")?)?;
        let server = stage.server_cpu_ms()?.saturating_sub(before);
        let mut reading = meter.since(&Meter::default(), stage.work.total());
        reading.extend(stage.pace(1, events, stage.work.total(), server).await?);
        must_be_right("pelton", stage.expected().check(&stage.client, OUTPUT).await?)?;
        Ok(reading)
    }
}

/// What a line of a report says, without the file that it is about: that lies in a temporary directory.
fn without_path(line: &str) -> String {
    line.split(' ').filter(|word| !word.contains('/')).collect::<Vec<&str>>().join(" ").trim().to_owned()
}
