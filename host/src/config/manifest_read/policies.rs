//! What becomes of messages that fail or wait, and how fast the consumer may be.

use std::sync::Arc;

use pelton_core::grants;
use pelton_core::policy::{BreakerPolicy, OnExhausted, ParkPolicy, Policy, RatePolicy, ReleasePolicy, RetryPolicy};

use super::DAY_MS;
use super::subjects::not_reserved;
use crate::config::manifest::Places;
use crate::config::reader::{At, Context, Section};
use crate::config::report::Code;

/// The breaker looks through its window on the thread that decides for all consumers, so it can't be large.
const WINDOW_ATTEMPTS_MAX: u64 = 1_000;

/// `[retry]`
pub(super) fn retry(context: &Context<'_>, mut section: Section<'_, '_>) -> (RetryPolicy, OnExhausted) {
    let default = RetryPolicy::default();
    let attempts = section.number_or("attempts_max", default.attempts_max.into(), 1..=1_000_000, "attempts").value;
    let total = section.number("total_ms", 1..=30 * DAY_MS, "milliseconds");
    let first = section.number_or("first_delay_ms", default.first_delay_ms, 1..=DAY_MS, "milliseconds");
    let longest = section.number_or("longest_delay_ms", default.longest_delay_ms, 1..=DAY_MS, "milliseconds");
    not_above(context, "[retry]", ("first_delay_ms", &first), ("longest_delay_ms", &longest));
    if let Some(total) = &total {
        not_above(context, "[retry]", ("first_delay_ms", &first), ("total_ms", total));
    }
    let policy = RetryPolicy {
        attempts_max: u32::try_from(attempts).unwrap_or(default.attempts_max),
        total_ms: total.map(|total| total.value),
        first_delay_ms: first.value,
        longest_delay_ms: longest.value,
        multiplier: section.float_or("multiplier", default.multiplier, 1.0..=100.0),
        jitter: section.float_or("jitter", default.jitter, 0.0..=1.0),
    };
    let ends =
        [("park-key", OnExhausted::ParkKey), ("dead-letter", OnExhausted::DeadLetter), ("halt", OnExhausted::Halt)];
    let on_exhausted = section.choice("on_exhausted", &ends);
    section.finish();
    (policy, on_exhausted.map_or_else(OnExhausted::default, |end| end.value))
}

/// `[release]`; how much may be parked is a limit.
pub(super) fn release(context: &Context<'_>, mut section: Section<'_, '_>) -> ReleasePolicy {
    let default = ReleasePolicy::default();
    let after = section.number_or_word("after_ms", 1..=30 * DAY_MS, "milliseconds", "never");
    let longest = section.number_or("longest_ms", default.longest_ms, 1..=30 * DAY_MS, "milliseconds");
    let on_new_version = section.flag("on_new_version");
    let after = after.unwrap_or(At { value: default.after_ms, offset: section.offset });
    if let Some(after_ms) = after.value {
        let after = At { value: after_ms, offset: after.offset };
        not_above(context, "[release]", ("after_ms", &after), ("longest_ms", &longest));
    }
    section.finish();
    ReleasePolicy {
        after_ms: after.value,
        longest_ms: longest.value,
        on_new_version: on_new_version.map_or(default.on_new_version, |flag| flag.value),
        rows_max: default.rows_max,
    }
}

/// `[park]`
pub(super) fn park(context: &Context<'_>, mut section: Section<'_, '_>) -> ParkPolicy {
    let default = ParkPolicy::default();
    let delay = section.number_or("delay_ms", default.delay_ms, 1..=DAY_MS, "milliseconds");
    let longest = section.number_or("longest_ms", default.longest_ms, 1..=30 * DAY_MS, "milliseconds");
    not_above(context, "[park]", ("delay_ms", &delay), ("longest_ms", &longest));
    section.finish();
    ParkPolicy { delay_ms: delay.value, longest_ms: longest.value }
}

/// `[breaker]`; none: it never opens.
pub(super) fn breaker(context: &Context<'_>, mut section: Section<'_, '_>) -> Option<BreakerPolicy> {
    let default = BreakerPolicy::default();
    let enabled = section.flag("enabled").is_none_or(|enabled| enabled.value);
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let window = section.number_or("window_attempts", count(default.window), 1..=WINDOW_ATTEMPTS_MAX, "attempts");
    let ratio = section.float_or("ratio", default.ratio, 0.0..=0.99);
    let keys = section.number_or("keys_min", count(default.keys_min), 1..=WINDOW_ATTEMPTS_MAX, "keys");
    let first = section.number_or("first_delay_ms", default.first_delay_ms, 1..=DAY_MS, "milliseconds");
    let longest = section.number_or("longest_delay_ms", default.longest_delay_ms, 1..=DAY_MS, "milliseconds");
    not_above(context, "[breaker]", ("keys_min", &keys), ("window_attempts", &window));
    not_above(context, "[breaker]", ("first_delay_ms", &first), ("longest_delay_ms", &longest));
    section.finish();
    enabled.then_some(BreakerPolicy {
        window: usize::try_from(window.value).unwrap_or(default.window),
        ratio,
        keys_min: usize::try_from(keys.value).unwrap_or(default.keys_min),
        first_delay_ms: first.value,
        longest_delay_ms: longest.value,
    })
}

/// `[rate]`
pub(super) fn rate(mut section: Section<'_, '_>) -> RatePolicy {
    let per_second = section.number("attempts_per_second", 1..=1_000_000, "attempts");
    let keys_max = section.number("keys_max", 1..=100_000, "keys");
    section.finish();
    RatePolicy {
        per_second: per_second.and_then(|per_second| u32::try_from(per_second.value).ok()),
        keys_max: keys_max.and_then(|keys| usize::try_from(keys.value).ok()),
    }
}

/// `[share]`
pub(super) fn share(mut section: Section<'_, '_>) -> u32 {
    let default = Policy::default().weight;
    let weight = section.number_or("weight", default.into(), 1..=10_000, "").value;
    section.finish();
    u32::try_from(weight).unwrap_or(default)
}

/// `[dead_letters]`; none: they are kept, and published nowhere. Whether they would come back is told when the streams are known.
pub(super) fn dead_letters(
    context: &Context<'_>,
    mut section: Section<'_, '_>,
    places: &mut Places,
) -> Option<Arc<str>> {
    let subject = section.text("subject");
    let field = section.name_of("subject");
    section.finish();
    let subject = subject?;
    if !grants::is_concrete_subject(&subject.value) {
        let message = format!("{:?} of {field} is not a subject to publish to", subject.value);
        let help = "write one subject: tokens with dots between them, without wildcards and white space; up to 1024 bytes in all";
        context.report(Code::InvalidSubject, subject.offset, message, help);
    }
    not_reserved(context, &field, std::slice::from_ref(&subject));
    places.dead_letters = Some(context.place(subject.offset));
    Some(subject.value.into())
}

fn not_above(context: &Context<'_>, section: &str, first: (&str, &At<u64>), longest: (&str, &At<u64>)) {
    let ((first_name, first), (longest_name, longest)) = (first, longest);
    if first.value > longest.value {
        let message = format!(
            "\"{first_name}\" in {section} is {}, above \"{longest_name}\", which is {}",
            first.value, longest.value
        );
        let help = format!("lower {first_name} or raise {longest_name}");
        context.report(Code::OutOfRange, first.offset.max(longest.offset), message, help);
    }
}
