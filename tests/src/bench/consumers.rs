//! The same work over 1, 10 and 100 consumers, each with a stream of its own.
//!
//! Consumers begin one after the other while a host starts. So that none works while others are still being deployed, they are paused, the work is published,
//! and all are resumed.

use anyhow::{Context, Result, ensure};

use super::figures::{Case, Reading};
use super::meter::Meter;
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::{OUTPUT, Stage};
use super::work::{Work, must_be_right};
use crate::host::Host;
use crate::progress::say;

pub(crate) const BENCH: &str = "consumers";

/// How many, and the case's name.
pub(crate) const COUNTS: [(u64, &str); 3] = [(1, "1"), (10, "10"), (100, "100")];

/// Runs it.
///
/// # Errors
/// The host does not come up, does not finish, or does the work wrongly.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (consumers, name) in COUNTS {
        let work = Work { consumers, ..Work::uniform(scale.messages()) };
        let mut readings = Vec::new();
        for round in 1..=scale.runs {
            say(&format!("{BENCH}: {name}, run {round} of {}", scale.runs));
            readings.push(once(&work).await?);
        }
        cases.push(Case::measured(BENCH, name, "the work over so many consumers, isolation fresh", &readings));
    }
    Ok(cases)
}

async fn once(work: &Work) -> Result<Reading> {
    let mut stage = Stage::empty(work).await?;
    let mut host = Pelton::with(Isolation::Fresh).prepare(&stage)?;
    Pelton::start_many(&mut host).await?;
    all(&host, work.consumers, "pause", r#"{"reason":"the work is not there yet"}"#).await?;
    stage.publish(work.total()).await?;
    let pid = host.pid().context("the host runs")?;
    let (before, server_before) = (Meter::of(pid)?, stage.server_cpu_ms()?);
    all(&host, work.consumers, "resume", "{}").await?;
    let expected = stage.expected();
    stage.wait_events(expected.events(), || host.log_tail()).await?;
    let server = stage.server_cpu_ms()?.saturating_sub(server_before);
    let mut reading = Meter::of(pid)?.since(&before, work.total());
    reading.extend(stage.pace(1, expected.events(), work.total(), server).await?);
    must_be_right("pelton", expected.check(&stage.client, OUTPUT).await?)?;
    Ok(reading)
}

/// Pauses or resumes all consumers, one after the other over one connection.
async fn all(host: &Host, consumers: u64, action: &'static str, body: &'static str) -> Result<()> {
    let address = std::fs::read_to_string(host.path("data/admin.address")).context("the host's admin address")?;
    let asking = tokio::task::spawn_blocking(move || -> Result<()> {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        for number in 0..consumers {
            let url = format!("http://{}/consumers/{}/{action}", address.trim(), Pelton::consumer(number));
            let mut answer = agent.post(&url).content_type("application/json").send(body)?;
            let said = answer.body_mut().read_to_string()?;
            ensure!(answer.status().is_success(), "the host refuses to {action} a consumer: {said}");
        }
        Ok(())
    });
    asking.await.context("the request was cancelled")?
}
