//! `[limits]`: of one attempt, and of what the consumer holds. `isolation` and `[reuse]`: how long an instance lives.

use pelton_core::policy::{AUDIT_ONE_IN, Isolation, Policy, ReleasePolicy, Reuse};
use pelton_core::transaction::EffectLimits;

use crate::config::manifest::RunLimits;
use crate::config::reader::{At, Context, Section};
use crate::config::report::Code;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Lines for the log.
fn lines(section: &mut Section<'_, '_>, name: &'static str, default: u32) -> u32 {
    u32::try_from(section.number_or(name, default.into(), 0..=100_000, "lines").value).unwrap_or(default)
}

pub(super) fn limits(mut section: Section<'_, '_>, policy: Policy) -> (Policy, EffectLimits, RunLimits) {
    let (run, effects) = (RunLimits::default(), EffectLimits::default());
    let run = RunLimits {
        timeout_ms: section.number_or("timeout_ms", run.timeout_ms, 1..=600_000, "milliseconds").value,
        memory_bytes: section.size_or("memory_bytes", run.memory_bytes, MIB..=GIB, "bytes"),
        log_lines_per_second: lines(&mut section, "log_lines_per_second", run.log_lines_per_second),
        log_lines_burst: lines(&mut section, "log_lines_burst", run.log_lines_burst),
    };
    let rows_max = section.number_or("parked_rows_max", policy.release.rows_max, 1..=100_000_000, "messages").value;
    let mut size = |name, default, range, unit| section.size_or(name, default, range, unit);
    let policy = Policy {
        messages_held_max: size("messages_held_max", policy.messages_held_max, 1..=1_000_000, "messages"),
        bytes_held_max: size("bytes_held_max", policy.bytes_held_max, 64 << 10..=16 * GIB, "bytes"),
        outbox_rows_max: size("outbox_rows_max", policy.outbox_rows_max, 1..=10_000_000, "events"),
        release: ReleasePolicy { rows_max, ..policy.release },
        ..policy
    };
    let effects = EffectLimits {
        state_key_bytes_max: size("state_key_bytes_max", effects.state_key_bytes_max, 1..=4_096, "bytes"),
        state_value_bytes_max: size("state_value_bytes_max", effects.state_value_bytes_max, 0..=64 * MIB, "bytes"),
        writes_max: size("writes_max", effects.writes_max, 0..=1_000_000, "writes"),
        write_bytes_max: size("write_bytes_max", effects.write_bytes_max, 0..=256 * MIB, "bytes"),
        reads_max: size("reads_max", effects.reads_max, 0..=10_000_000, "entries"),
        events_max: size("events_max", effects.events_max, 0..=100_000, "events"),
        event_bytes_max: size("event_bytes_max", effects.event_bytes_max, 0..=64 * MIB, "bytes"),
        event_header_bytes_max: size("event_header_bytes_max", effects.event_header_bytes_max, 0..=MIB, "bytes"),
    };
    section.finish();
    (policy, effects, run)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fresh,
    Reuse,
    Audited,
}

/// `isolation` and `[reuse]`. A bound without a mode that it belongs to is a mistake: somebody believes that it does something.
pub(super) fn isolation(context: &Context<'_>, root: &mut Section<'_, '_>) -> Isolation {
    let default = Reuse::default();
    let modes = [("fresh", Mode::Fresh), ("reuse", Mode::Reuse), ("audited", Mode::Audited)];
    let mode = root.choice("isolation", &modes).map_or(Mode::Fresh, |mode| mode.value);
    let mut section = root.section("reuse");
    let invocations = section.number("invocations_max", 1..=1_000_000, "attempts");
    let age = section.number("age_max_ms", 1..=3_600_000, "milliseconds");
    let one_in = section.number("audit_one_in", 1..=1_000_000, "attempts");
    section.finish();
    let idle = |field: &str, given: &Option<At<u64>>, needed: &str| {
        if let Some(given) = given {
            let message = format!("\"{field}\" in [reuse] does nothing without {needed}");
            let help = format!("add {needed} above the first section, or remove {field}");
            context.report(Code::Conflict, given.offset, message, help);
        }
    };
    if mode == Mode::Fresh {
        let needed = "isolation = \"reuse\" or isolation = \"audited\"";
        idle("invocations_max", &invocations, needed);
        idle("age_max_ms", &age, needed);
    }
    if mode != Mode::Audited {
        idle("audit_one_in", &one_in, "isolation = \"audited\"");
    }
    let number = |at: At<u64>| u32::try_from(at.value).unwrap_or(u32::MAX);
    let reuse = Reuse {
        invocations_max: invocations.map_or(default.invocations_max, number),
        age_max_ms: age.map_or(default.age_max_ms, |at| at.value),
        audit_one_in: (mode == Mode::Audited).then(|| one_in.map_or(AUDIT_ONE_IN, number)),
    };
    if mode == Mode::Fresh { Isolation::Fresh } else { Isolation::Reuse(reuse) }
}
