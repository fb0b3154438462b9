//! Back to a version that served before: because an operator says so, or because the one that serves failed in its probation.
//!
//! It is in the ledger before it is done, so that a restart in between goes on with what was wanted.

use pelton_core::ids::Version;
use pelton_core::plan::Form;

use super::deployer::Deployer;
use super::look::{Source, Wanted};
use super::request::{Pressing, RollBack, RollBackRefused, RolledBack};
use crate::driver::FailedVersion;
use crate::telemetry::meters::Swap;
use crate::versions::{Ledger, State};

impl Deployer {
    /// Does what can't wait.
    pub(super) async fn serve(&mut self, pressing: Pressing) {
        match pressing {
            Pressing::RollBack(RollBack { consumer, to, answer }) => {
                let done = self.roll_back(&consumer, to.as_deref(), "an operator took it back").await;
                // Who no longer waits for the answer finds it in the log.
                _ = answer.send(done);
            }
            Pressing::Failed(failed) => self.give_up(failed).await,
        }
    }

    /// Takes back a version that failed in its probation, if it still serves.
    async fn give_up(&mut self, failed: FailedVersion) {
        let FailedVersion { consumer, version, reason } = failed;
        if self.running.get(consumer.as_ref()).is_none_or(|running| running.form.version != version) {
            return;
        }
        let reason = format!("it failed in its probation: {reason}");
        if let Err(error) = self.roll_back(&consumer, None, &reason).await {
            tracing::error!(consumer = %consumer, version = version.short(), %error,
                "a version failed in its probation and can't be taken back; it goes on with its breaker open");
        }
    }

    async fn roll_back(&mut self, name: &str, to: Option<&str>, reason: &str) -> Result<RolledBack, RollBackRefused> {
        let Some(running) = self.running.get(name) else { return Err(RollBackRefused::NotRunning(name.into())) };
        let from = running.form.version;
        let to = target(name, from, to, &self.deps.versions.ledger(name))?;
        let (text, manifest) = (running.text, running.manifest.clone());
        let wanted = Wanted { form: Form { version: to, ..running.form }, manifest, text, from: Source::Kept };
        let loaded = self.begin_load(wanted).await.map_err(|failure| RollBackRefused::CantServe {
            consumer: name.into(),
            version: to.short(),
            reason: format!("{:#}", failure.error),
        })?;
        let (at_ms, why) = (self.deps.clock.now().wall_ms, reason.to_owned());
        let recorded = self.record(name, move |ledger| ledger.rolled_back(to, text, &why, at_ms)).await;
        if let Err(error) = &recorded {
            tracing::error!(
                consumer = name,
                error = format!("{error:#}"),
                "a rollback can't be written down: it is done, and the next start will not know of it"
            );
        }
        let failed =
            |error: anyhow::Error| RollBackRefused::Failed { consumer: name.into(), reason: format!("{error:#}") };
        self.replace(name, loaded, false).map_err(failed)?;
        self.deps.meters.swap(Swap::RolledBack);
        tracing::warn!(consumer = name, from = from.short(), to = to.short(), reason, "rolled back");
        self.deps.board.note(name, |entry| {
            entry.version = Some(to);
            entry.isolation = None;
        });
        self.remark_held_back(name, from);
        Ok(RolledBack { from, to, durable: recorded.is_ok() })
    }

    /// Says on the board that a version is not deployed because it was taken back.
    pub(super) fn remark_held_back(&mut self, name: &str, version: Version) -> String {
        let ledger = self.deps.versions.ledger(name);
        let why = ledger.entry(version).and_then(|entry| entry.reason.clone()).unwrap_or_default();
        let serving = ledger.serving().map(|serving| serving.short()).unwrap_or_default();
        let text = format!(
            "version {} is held back ({why}), and {serving} serves: change the component or the manifest, or `pelton rollback {name} {}`",
            version.short(),
            version.short()
        );
        self.remark(name, text.clone());
        text
    }
}

/// The version to go back to.
fn target(name: &str, serving: Version, digits: Option<&str>, ledger: &Ledger) -> Result<Version, RollBackRefused> {
    let Some(digits) = digits else {
        return ledger.previous().ok_or_else(|| RollBackRefused::NoneBefore(name.into()));
    };
    let (consumer, digits) = (name.to_owned(), digits.trim_start_matches("sha256:").to_ascii_lowercase());
    let served = ledger.entries().iter().filter(|entry| entry.state != State::Refused);
    let mut found = served.map(|entry| entry.version).filter(|version| version.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(RollBackRefused::Ambiguous { consumer, digits }),
        (Some(version), None) if version == serving => {
            Err(RollBackRefused::Serves { consumer, version: version.short() })
        }
        (Some(version), None) if !digits.is_empty() => Ok(version),
        _ => Err(RollBackRefused::Unknown { consumer, digits }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u8) -> Version {
        Version([n; 32])
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.serves(Version([0xab; 32]), 1);
        ledger.serves(
            Version({
                let mut bytes = [0xab; 32];
                bytes[31] = 0;
                bytes
            }),
            2,
        );
        ledger.refused(version(7), "broken", 3);
        ledger.serves(version(8), 4);
        ledger
    }

    #[test]
    fn a_version_is_named_by_as_many_digits_as_tell_it_apart() {
        let (ledger, serving) = (ledger(), version(8));
        let of = |digits: &str| target("c", serving, Some(digits), &ledger);
        assert_eq!(of(&"ab".repeat(32)).unwrap(), version(0xab));
        assert_eq!(of(&format!("sha256:{}", "AB".repeat(32))).unwrap(), version(0xab));
        assert!(matches!(of("ab"), Err(RollBackRefused::Ambiguous { .. })));
        assert!(matches!(of("08"), Err(RollBackRefused::Serves { .. })));
        for unknown in ["07", "ff", "xyz"] {
            assert!(matches!(of(unknown), Err(RollBackRefused::Unknown { .. })), "{unknown}");
        }
    }

    #[test]
    fn without_digits_it_is_the_version_before_if_there_is_one() {
        let ledger = ledger();
        let before = target("c", version(8), None, &ledger).unwrap();
        assert_eq!(before.0[31], 0);
        let mut first = Ledger::default();
        first.serves(version(1), 1);
        assert!(matches!(target("c", version(1), None, &first), Err(RollBackRefused::NoneBefore(_))));
    }
}
