//! `[[streams]]`: what to create if it is missing.

use super::subjects::{no_overlap, not_reserved, patterns, stream_name, values_of};
use super::{DAY_MS, HOUR_MS};
use crate::config::manifest::{Places, Retention, StreamSpec};
use crate::config::reader::{Context, Section};
use crate::config::report::Code;

/// Nothing is kept longer than this on purpose: a century.
const HOURS_MAX: u64 = 876_000;

pub(super) fn streams(context: &Context<'_>, root: &mut Section<'_, '_>, places: &mut Places) -> Vec<StreamSpec> {
    let mut streams: Vec<StreamSpec> = Vec::new();
    for section in root.sections("streams") {
        let place = context.place(section.offset);
        let offset = section.offset;
        let Some(spec) = stream(context, section) else { continue };
        if streams.iter().any(|known| known.name == spec.name) {
            let message = format!("stream {:?} is declared twice in this file", spec.name);
            context.report(Code::StreamDeclaredTwice, offset, message, "remove one of the two sections");
        }
        streams.push(spec);
        places.streams.push(place);
    }
    streams
}

fn stream(context: &Context<'_>, mut section: Section<'_, '_>) -> Option<StreamSpec> {
    let name = section.required_text("name", "add name = \"NAME\"");
    if let Some(name) = &name {
        stream_name(context, &section, "name", name);
    }
    let subjects = section.required_texts("subjects", "add subjects = [\"PATTERN\"]: what the stream keeps");
    if let Some(subjects) = &subjects {
        let field = section.name_of("subjects");
        patterns(context, &field, subjects);
        not_reserved(context, &field, subjects);
        no_overlap(context, "the broker refuses streams that overlap themselves", subjects);
    }
    let retentions =
        [("limits", Retention::Limits), ("work-queue", Retention::WorkQueue), ("interest", Retention::Interest)];
    let retention = section.choice("retention", &retentions);
    let max_age = section.number_or("max_age_hours", 0, 0..=HOURS_MAX, "hours");
    let max_bytes = section.number_or("max_bytes", 0, 0..=1 << 50, "bytes").value;
    let window = section.number_or("duplicate_window_ms", 120_000, 100..=30 * DAY_MS, "milliseconds");
    if max_age.value > 0 && window.value > max_age.value.saturating_mul(HOUR_MS) {
        let message = format!(
            "\"duplicate_window_ms\" in [[streams]] is {}, longer than \"max_age_hours\", which is {}",
            window.value, max_age.value
        );
        let help = "lower duplicate_window_ms or raise max_age_hours; the broker refuses such a stream";
        context.report(Code::OutOfRange, window.offset.max(max_age.offset), message, help);
    }
    let replicas = section.size_or("replicas", 1, 1..=5, "servers");
    section.finish();
    Some(StreamSpec {
        name: name?.value,
        subjects: values_of(subjects?),
        retention: retention.map_or_else(Retention::default, |retention| retention.value),
        max_age_hours: max_age.value,
        max_bytes,
        duplicate_window_ms: window.value,
        replicas,
    })
}
