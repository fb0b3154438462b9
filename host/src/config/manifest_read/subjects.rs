//! Names of streams and patterns of subjects, wherever they stand in a manifest.

use pelton_core::grants;

use crate::config::reader::{At, Context, Section};
use crate::config::report::Code;
use crate::config::values;

pub(super) fn values_of(texts: Vec<At<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

pub(super) fn stream_name(context: &Context<'_>, section: &Section<'_, '_>, field: &str, name: &At<String>) {
    if !values::is_stream_name(&name.value) {
        let message = format!("{} can't be {:?}", section.name_of(field), name.value);
        let help = "a stream's name has up to 255 bytes, without white space and none of . * > / \\";
        context.report(Code::InvalidText, name.offset, message, help);
    }
}

pub(super) fn patterns(context: &Context<'_>, field: &str, patterns: &[At<String>]) {
    for pattern in patterns {
        if let Some(help) = values::pattern_flaw(&pattern.value) {
            let message = format!("{:?} of {field} is not a subject pattern", pattern.value);
            context.report(Code::InvalidSubject, pattern.offset, message, help);
        }
    }
}

pub(super) fn not_reserved(context: &Context<'_>, field: &str, patterns: &[At<String>]) {
    for pattern in patterns.iter().filter(|pattern| grants::is_reserved_subject(&pattern.value)) {
        let message = format!("{:?} of {field} belongs to NATS itself", pattern.value);
        let help = "name subjects that begin neither with \"$\" nor with \"_INBOX\" or \"_R_\"";
        context.report(Code::ReservedSubject, pattern.offset, message, help);
    }
}

pub(super) fn no_overlap(context: &Context<'_>, why: &str, patterns: &[At<String>]) {
    let mut before: Vec<&str> = Vec::new();
    for pattern in patterns {
        if let Some(other) = before.iter().find(|other| values::patterns_overlap(other, &pattern.value)) {
            let message = format!("{:?} overlaps {other:?}, and {why}", pattern.value);
            context.report(Code::SubjectsOverlap, pattern.offset, message, "keep the wider of the two, or narrow them");
        }
        before.push(&pattern.value);
    }
}
