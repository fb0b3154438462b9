//! `digest` and `[deploy]`: which bytes may serve, and how a new version is tried.

use pelton_core::ids::Version;

use super::DAY_MS;
use crate::config::manifest::DeployRules;
use crate::config::reader::{Context, Section};
use crate::config::report::Code;

/// Messages of a rehearsal, at most: it holds them in memory while it lasts.
const REHEARSE_MAX: u64 = 10_000;

/// `digest`; none: whatever bytes the component has.
pub(super) fn digest(context: &Context<'_>, root: &mut Section<'_, '_>) -> Option<Version> {
    let given = root.text("digest")?;
    let digest = given.value.strip_prefix("sha256:").and_then(Version::parse);
    if digest.is_none() {
        let message = format!("{} can't be {:?}", root.name_of("digest"), given.value);
        let help = "write \"sha256:\" and 64 hex digits, as `sha256sum FILE.wasm` prints them";
        context.report(Code::InvalidText, given.offset, message, help);
    }
    digest
}

/// `[deploy]`
pub(super) fn deploy(mut section: Section<'_, '_>) -> DeployRules {
    let default = DeployRules::default();
    let rules = DeployRules {
        probation_ms: section.number_or("probation_ms", default.probation_ms, 0..=DAY_MS, "milliseconds").value,
        probation_messages: u32::try_from(
            section.number_or("probation_messages", default.probation_messages.into(), 0..=1_000_000, "messages").value,
        )
        .unwrap_or(default.probation_messages),
        rehearse: section.size_or("rehearse", default.rehearse, 0..=REHEARSE_MAX, "messages"),
        trap_ratio_max: section.float_or("trap_ratio_max", default.trap_ratio_max, 0.0..=1.0),
    };
    section.finish();
    rules
}
