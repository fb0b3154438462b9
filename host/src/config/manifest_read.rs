//! From the TOML of a manifest to a [`Manifest`].

use pelton_core::grants::{self, Grants};
use pelton_core::policy::{ParkPolicy, Policy, RetryPolicy};
use pelton_core::transaction::EffectLimits;

use super::host_read::beside;
use super::manifest::{
    IdSource, Key, Loaded, Manifest, Payload, Places, Retention, RunLimits, Start, StreamSpec, Subscription,
};
use super::reader::{At, Context, Section, listed};
use super::report::Code;
use super::values::{self, JsonPointer};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Nothing is kept longer than this on purpose: a century.
const HOURS_MAX: u64 = 876_000;

/// None if something that it can't be without is missing; otherwise as much as could be read, with the context's problems beside it.
pub(super) fn read(context: &Context<'_>, name: &str) -> Option<Loaded> {
    let mut places = Places::default();
    let mut root = context.root()?;
    let component = root.required_text("component", "add component = \"FILE.wasm\" above the first section");
    let subscription = root
        .required_section("subscription", "add [subscription] with stream = \"…\" and subjects = [\"…\"]")
        .and_then(|section| subscription(context, section, &mut places));
    let key = root
        .required_section("key", "add [key] with subject_token, header, json_pointer, or none = true")
        .and_then(|section| key(context, section, subscription.as_ref()));
    let id = id(context, root.section("id"));
    let grants = grants(context, root.section("grants"));
    let shared_state = scope(root.section("state"));
    let retry = retry(context, root.section("retry"));
    let park = park(context, root.section("park"));
    let (policy, effects, run) =
        limits(root.section("limits"), Policy { retry, park, shared_state, ..Policy::default() });
    let config = root.section("config").free_texts();
    let streams = streams(context, &mut root, &mut places);
    root.finish();
    let manifest = Manifest {
        name: name.into(),
        component: beside(context.file, component?.value),
        subscription: subscription?,
        key: key?,
        id,
        grants,
        policy,
        effects,
        run,
        config,
        streams,
        file: context.file.into(),
    };
    Some(Loaded { manifest, places })
}

fn subscription(context: &Context<'_>, mut section: Section<'_, '_>, places: &mut Places) -> Option<Subscription> {
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

fn values_of(texts: Vec<At<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

fn stream_name(context: &Context<'_>, section: &Section<'_, '_>, field: &str, name: &At<String>) {
    if !values::is_stream_name(&name.value) {
        let message = format!("{} can't be {:?}", section.name_of(field), name.value);
        let help = "a stream's name has up to 255 bytes, without white space and none of . * > / \\";
        context.report(Code::InvalidText, name.offset, message, help);
    }
}

fn patterns(context: &Context<'_>, field: &str, patterns: &[At<String>]) {
    for pattern in patterns {
        if let Some(help) = values::pattern_flaw(&pattern.value) {
            let message = format!("{:?} of {field} is not a subject pattern", pattern.value);
            context.report(Code::InvalidSubject, pattern.offset, message, help);
        }
    }
}

fn not_reserved(context: &Context<'_>, field: &str, patterns: &[At<String>]) {
    for pattern in patterns.iter().filter(|pattern| grants::is_reserved_subject(&pattern.value)) {
        let message = format!("{:?} of {field} belongs to NATS itself", pattern.value);
        let help = "name subjects that begin neither with \"$\" nor with \"_INBOX\" or \"_R_\"";
        context.report(Code::ReservedSubject, pattern.offset, message, help);
    }
}

fn no_overlap(context: &Context<'_>, why: &str, patterns: &[At<String>]) {
    let mut before: Vec<&str> = Vec::new();
    for pattern in patterns {
        if let Some(other) = before.iter().find(|other| values::patterns_overlap(other, &pattern.value)) {
            let message = format!("{:?} overlaps {other:?}, and {why}", pattern.value);
            context.report(Code::SubjectsOverlap, pattern.offset, message, "keep the wider of the two, or narrow them");
        }
        before.push(&pattern.value);
    }
}

fn key(context: &Context<'_>, mut section: Section<'_, '_>, subscription: Option<&Subscription>) -> Option<Key> {
    if section.has_none_of(&["subject_token", "header", "json_pointer", "none"]) {
        let help = "add subject_token = 2, header = \"…\", json_pointer = \"/…\", or none = true";
        context.report(Code::MissingField, section.offset, "[key] does not say where the key comes from", help);
    }
    let token = section.number("subject_token", 1..=64, "(the first token is 1)");
    let header = header(context, &mut section);
    let pointer = pointer(context, &mut section);
    let none = section.flag("none");
    if let (Some(token), Some(subscription)) = (&token, subscription) {
        token_is_there(context, token, subscription);
    }
    if let Some(none) = none.as_ref().filter(|none| !none.value) {
        let help = "remove it, and name where the key comes from";
        context.report(Code::InvalidChoice, none.offset, "\"none\" in [key] can only be true", help);
    }
    let mut given: Vec<(&str, usize, Option<Key>)> = Vec::new();
    let as_token = |token: u64| usize::try_from(token).ok().map(Key::SubjectToken);
    given.extend(token.map(|at| ("subject_token", at.offset, as_token(at.value))));
    given.extend(header.map(|at| ("header", at.offset, at.value.map(Key::Header))));
    given.extend(pointer.map(|at| ("json_pointer", at.offset, at.value.map(Key::JsonPointer))));
    given.extend(none.map(|at| ("none", at.offset, Some(Key::None))));
    only_one(context, "[key]", &given, "keep one of them");
    section.finish();
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

fn only_one<T>(context: &Context<'_>, section: &str, given: &[(&str, usize, T)], help: &str) {
    if given.len() > 1 {
        let names: Vec<_> = given.iter().map(|(name, ..)| *name).collect();
        let last = given.iter().map(|(_, offset, _)| *offset).max().unwrap_or(0);
        let message = format!("{} in {section} exclude each other", listed(&names, "and"));
        context.report(Code::Conflict, last, message, help);
    }
}

/// The name of a header; nothing inside if it can't be one.
fn header(context: &Context<'_>, section: &mut Section<'_, '_>) -> Option<At<Option<String>>> {
    let At { value, offset } = section.text("header")?;
    if values::is_header_name(&value) {
        return Some(At { value: Some(value), offset });
    }
    let message = format!("{} can't be {value:?}", section.name_of("header"));
    context.report(Code::InvalidText, offset, message, "a header's name is printable ASCII without spaces and colons");
    Some(At { value: None, offset })
}

/// A pointer into the payload; nothing inside if it is none.
fn pointer(context: &Context<'_>, section: &mut Section<'_, '_>) -> Option<At<Option<JsonPointer>>> {
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

fn id(context: &Context<'_>, mut section: Section<'_, '_>) -> IdSource {
    let header = header(context, &mut section);
    let pointer = pointer(context, &mut section);
    section.finish();
    let mut given: Vec<(&str, usize, Option<IdSource>)> = Vec::new();
    given.extend(header.map(|at| ("header", at.offset, at.value.map(IdSource::Header))));
    given.extend(pointer.map(|at| ("json_pointer", at.offset, at.value.map(IdSource::JsonPointer))));
    only_one(context, "[id]", &given, "keep one of them; without either, it is the header Nats-Msg-Id");
    given.pop().and_then(|(.., id)| id).unwrap_or_default()
}

fn grants(context: &Context<'_>, mut section: Section<'_, '_>) -> Grants {
    let emit = section.texts("emit").unwrap_or_default();
    let field = section.name_of("emit");
    patterns(context, &field, &emit);
    not_reserved(context, &field, &emit);
    section.finish();
    Grants { emit: emit.into_iter().map(|pattern| pattern.value.into()).collect() }
}

fn scope(mut section: Section<'_, '_>) -> bool {
    let shared = section.choice("scope", &[("key", false), ("consumer", true)]);
    section.finish();
    shared.is_some_and(|shared| shared.value)
}

fn retry(context: &Context<'_>, mut section: Section<'_, '_>) -> RetryPolicy {
    let default = RetryPolicy::default();
    let attempts = section.number_or("attempts_max", default.attempts_max.into(), 1..=1_000_000, "attempts").value;
    let first = section.number_or("first_delay_ms", default.first_delay_ms, 1..=DAY_MS, "milliseconds");
    let longest = section.number_or("longest_delay_ms", default.longest_delay_ms, 1..=DAY_MS, "milliseconds");
    not_above(context, "[retry]", ("first_delay_ms", &first), ("longest_delay_ms", &longest));
    let policy = RetryPolicy {
        attempts_max: u32::try_from(attempts).unwrap_or(default.attempts_max),
        first_delay_ms: first.value,
        longest_delay_ms: longest.value,
        multiplier: section.float_or("multiplier", default.multiplier, 1.0..=100.0),
        jitter: section.float_or("jitter", default.jitter, 0.0..=1.0),
    };
    section.finish();
    policy
}

fn park(context: &Context<'_>, mut section: Section<'_, '_>) -> ParkPolicy {
    let default = ParkPolicy::default();
    let delay = section.number_or("delay_ms", default.delay_ms, 1..=DAY_MS, "milliseconds");
    let longest = section.number_or("longest_ms", default.longest_ms, 1..=30 * DAY_MS, "milliseconds");
    not_above(context, "[park]", ("delay_ms", &delay), ("longest_ms", &longest));
    section.finish();
    ParkPolicy { delay_ms: delay.value, longest_ms: longest.value }
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

fn limits(mut section: Section<'_, '_>, policy: Policy) -> (Policy, EffectLimits, RunLimits) {
    let (run, effects) = (RunLimits::default(), EffectLimits::default());
    let run = RunLimits {
        timeout_ms: section.number_or("timeout_ms", run.timeout_ms, 1..=600_000, "milliseconds").value,
        memory_bytes: section.size_or("memory_bytes", run.memory_bytes, MIB..=GIB, "bytes"),
    };
    let mut size = |name, default, range, unit| section.size_or(name, default, range, unit);
    let policy = Policy {
        messages_held_max: size("messages_held_max", policy.messages_held_max, 1..=1_000_000, "messages"),
        bytes_held_max: size("bytes_held_max", policy.bytes_held_max, 64 << 10..=16 * GIB, "bytes"),
        outbox_rows_max: size("outbox_rows_max", policy.outbox_rows_max, 1..=10_000_000, "events"),
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

fn streams(context: &Context<'_>, root: &mut Section<'_, '_>, places: &mut Places) -> Vec<StreamSpec> {
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
