//! What decides how messages are read: `[subscription]`, `[key]` and `[id]`.

use super::HOUR_MS;
use super::subjects::{no_overlap, patterns, stream_name, values_of};
use crate::config::manifest::{IdSource, Key, Payload, Places, Start, Subscription};
use crate::config::reader::{At, Context, Section, listed};
use crate::config::report::Code;
use crate::config::values::{self, JsonPointer};

/// Whether messages have an order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Those of one key, among themselves.
    Ordered,
    /// None at all.
    Shared,
}

/// None if there is a mode that is none.
pub(super) fn mode(section: &mut Section<'_, '_>) -> Option<Mode> {
    let is_default = section.has_none_of(&["mode"]);
    let mode = section.choice("mode", &[("ordered", Mode::Ordered), ("shared", Mode::Shared)]);
    if is_default { Some(Mode::Ordered) } else { mode.map(|mode| mode.value) }
}

pub(super) fn subscription(
    context: &Context<'_>,
    mut section: Section<'_, '_>,
    places: &mut Places,
) -> Option<Subscription> {
    let stream = section.required_text("stream", "add stream = \"NAME\": the JetStream stream to read");
    if let Some(stream) = &stream {
        stream_name(context, &section, "stream", stream);
    }
    let subjects = section.required_texts("subjects", "add subjects = [\"PATTERN\"]; [\">\"] is all of the stream");
    if let Some(subjects) = &subjects {
        patterns(context, &section.name_of("subjects"), subjects);
        no_overlap(context, "the broker refuses subscriptions that overlap themselves", subjects);
        places.subjects = subjects.iter().map(|subject| context.place(subject.offset)).collect();
    }
    let start = section.choice("start", &[("all", Start::All), ("new", Start::New)]);
    places.start = Some(context.place(start.as_ref().map_or(section.offset, |start| start.offset)));
    let payload = section.choice("payload", &[("bytes", Payload::Bytes), ("json", Payload::Json)]);
    let ack_wait_ms = section.number_or("ack_wait_ms", 30_000, 1_000..=HOUR_MS, "milliseconds").value;
    section.finish();
    Some(Subscription {
        stream: stream?.value,
        subjects: values_of(subjects?),
        start: start.map_or_else(Start::default, |start| start.value),
        payload: payload.map_or_else(Payload::default, |payload| payload.value),
        ack_wait_ms,
    })
}

/// `[key]`, which an ordered subscription needs and a shared one can't have.
pub(super) fn key(
    context: &Context<'_>,
    root: &mut Section<'_, '_>,
    mode: Option<Mode>,
    subscription: Option<&Subscription>,
) -> Option<Key> {
    let section = if mode == Some(Mode::Ordered) {
        let help = "add [key] with subject_token, header or json_pointer, or mode = \"shared\" in [subscription] if messages need no order";
        root.required_section("key", help)
    } else {
        root.optional_section("key")
    };
    if mode != Some(Mode::Shared) {
        return section.and_then(|section| key_source(context, section, subscription));
    }
    if let Some(section) = section {
        let message =
            "[key] has no effect with mode = \"shared\" in [subscription], where no message waits for another";
        context.report(Code::Conflict, section.offset, message, "remove [key], or mode = \"shared\"");
    }
    Some(Key::None)
}

fn key_source(context: &Context<'_>, mut section: Section<'_, '_>, subscription: Option<&Subscription>) -> Option<Key> {
    let gone = section.gone("none", "write mode = \"shared\" in [subscription] instead, and remove [key]");
    if !gone && section.has_none_of(&["subject_token", "header", "json_pointer"]) {
        let help = "add subject_token = 2, header = \"…\" or json_pointer = \"/…\"";
        context.report(Code::MissingField, section.offset, "[key] does not say where the key comes from", help);
    }
    let token = section.number("subject_token", 1..=64, "(the first token is 1)");
    let header = header(context, &mut section);
    let pointer = pointer(context, &mut section);
    section.finish();
    if let (Some(token), Some(subscription)) = (&token, subscription) {
        token_is_there(context, token, subscription);
    }
    let mut given: Vec<(&str, usize, Option<Key>)> = Vec::new();
    let as_token = |token: u64| usize::try_from(token).ok().map(Key::SubjectToken);
    given.extend(token.map(|at| ("subject_token", at.offset, as_token(at.value))));
    given.extend(header.map(|at| ("header", at.offset, at.value.map(Key::Header))));
    given.extend(pointer.map(|at| ("json_pointer", at.offset, at.value.map(Key::JsonPointer))));
    only_one(context, "[key]", &given, "keep one of them");
    given.pop().and_then(|(.., key)| key)
}

/// A pattern without `>` tells how many tokens its subjects have.
fn token_is_there(context: &Context<'_>, token: &At<u64>, subscription: &Subscription) {
    for subject in &subscription.subjects {
        let (tokens, more) = values::pattern_tokens(subject);
        if !more && u64::try_from(tokens).is_ok_and(|tokens| tokens < token.value) {
            let message = format!(
                "\"subject_token\" in [key] is {}, but subjects that match {subject:?} have {tokens}",
                token.value
            );
            let help = "correct the number (the first token is 1) or the subscription's subjects";
            context.report(Code::OutOfRange, token.offset, message, help);
        }
    }
}

pub(super) fn only_one<T>(context: &Context<'_>, section: &str, given: &[(&str, usize, T)], help: &str) {
    if given.len() > 1 {
        let names: Vec<_> = given.iter().map(|(name, ..)| *name).collect();
        let last = given.iter().map(|(_, offset, _)| *offset).max().unwrap_or(0);
        let message = format!("{} in {section} exclude each other", listed(&names, "and"));
        context.report(Code::Conflict, last, message, help);
    }
}

/// The name of a header; nothing inside if it can't be one.
pub(super) fn header(context: &Context<'_>, section: &mut Section<'_, '_>) -> Option<At<Option<String>>> {
    let At { value, offset } = section.text("header")?;
    if values::is_header_name(&value) {
        return Some(At { value: Some(value), offset });
    }
    let message = format!("{} can't be {value:?}", section.name_of("header"));
    context.report(Code::InvalidText, offset, message, "a header's name is printable ASCII without spaces and colons");
    Some(At { value: None, offset })
}

/// A pointer into the payload; nothing inside if it is none.
pub(super) fn pointer(context: &Context<'_>, section: &mut Section<'_, '_>) -> Option<At<Option<JsonPointer>>> {
    let At { value, offset } = section.text("json_pointer")?;
    match JsonPointer::parse(&value) {
        Ok(pointer) => Some(At { value: Some(pointer), offset }),
        Err(flaw) => {
            let message = format!("{} can't be {value:?}: {flaw}", section.name_of("json_pointer"));
            context.report(Code::InvalidPointer, offset, message, "write it like \"/customer/id\" (RFC 6901)");
            Some(At { value: None, offset })
        }
    }
}

pub(super) fn id(context: &Context<'_>, mut section: Section<'_, '_>) -> IdSource {
    let header = header(context, &mut section);
    let pointer = pointer(context, &mut section);
    section.finish();
    let mut given: Vec<(&str, usize, Option<IdSource>)> = Vec::new();
    given.extend(header.map(|at| ("header", at.offset, at.value.map(IdSource::Header))));
    given.extend(pointer.map(|at| ("json_pointer", at.offset, at.value.map(IdSource::JsonPointer))));
    only_one(context, "[id]", &given, "keep one of them; without either, it is the header Nats-Msg-Id");
    given.pop().and_then(|(.., id)| id).unwrap_or_default()
}
