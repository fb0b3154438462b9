//! `[order]`: by the stream alone, or by versions that messages carry.

use pelton_core::policy::{OnGap, VersionPolicy};

use super::DAY_MS;
use super::reading::{Mode, header, only_one, pointer};
use crate::config::manifest::VersionSource;
use crate::config::reader::{Context, Section, listed};
use crate::config::report::Code;

/// No first version is higher: TOML knows no higher whole number.
const FIRST_MAX: u64 = i64::MAX.unsigned_abs();

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Stream,
    Version,
}

/// Where versions are and what their order means; none: stream order is all.
pub(super) fn order(
    context: &Context<'_>,
    mut section: Section<'_, '_>,
    mode: Option<Mode>,
) -> Option<(VersionSource, VersionPolicy)> {
    let is_default = section.has_none_of(&["by"]);
    let beside = section.those_of(&["header", "json_pointer", "first", "gap_longest_ms", "on_gap"]);
    let has_source = beside.iter().any(|name| ["header", "json_pointer"].contains(name));
    let (offset, default) = (section.offset, VersionPolicy::default());
    let by = section.choice("by", &[("stream", By::Stream), ("version", By::Version)]);
    let header = header(context, &mut section);
    let pointer = pointer(context, &mut section);
    let first = section.number_or_word("first", 0..=FIRST_MAX, "", "any");
    let policy = VersionPolicy {
        first: first.map_or(default.first, |first| first.value),
        gap_longest_ms: section
            .number_or("gap_longest_ms", default.gap_longest_ms, 1..=30 * DAY_MS, "milliseconds")
            .value,
        on_gap: section
            .choice("on_gap", &[("go-on", OnGap::GoOn), ("dead-letter", OnGap::DeadLetter)])
            .map_or(default.on_gap, |on_gap| on_gap.value),
    };
    section.finish();
    let mut given: Vec<(&str, usize, Option<VersionSource>)> = Vec::new();
    given.extend(header.map(|at| ("header", at.offset, at.value.map(VersionSource::Header))));
    given.extend(pointer.map(|at| ("json_pointer", at.offset, at.value.map(VersionSource::JsonPointer))));
    let by_version = by.as_ref().is_some_and(|by| by.value == By::Version);
    if !by_version {
        let by_stream = is_default || by.is_some();
        if by_stream && !beside.is_empty() {
            let message = format!("{} in [order]: without effect unless by = \"version\"", listed(&beside, "and"));
            context.report(Code::Conflict, offset, message, "add by = \"version\", or remove them");
        }
        return None;
    }
    only_one(context, "[order]", &given, "keep one of them");
    if !has_source {
        let help = "add header = \"…\" or json_pointer = \"/…\"";
        context.report(Code::MissingField, offset, "[order] does not say where an entity's version is", help);
    }
    if mode == Some(Mode::Shared) {
        let message = "by = \"version\" in [order] needs an ordered subscription: the versions are those of a key";
        let help = "remove [order], or remove mode = \"shared\" and add [key]";
        context.report(Code::Conflict, by.map_or(offset, |by| by.offset), message, help);
    }
    given.pop().and_then(|(.., source)| Some((source?, policy)))
}
