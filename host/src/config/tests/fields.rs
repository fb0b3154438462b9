//! Every field of a policy: its default, both ends of its range and what is beyond them, another type, a slip of the pen.

use std::fmt::Debug;

use pelton_core::policy::{BreakerPolicy, OnExhausted, OnGap, RatePolicy, ReleasePolicy, RetryPolicy, VersionPolicy};

use super::*;

const DAY_MS: u64 = 86_400_000;
const MONTH_MS: u64 = 30 * DAY_MS;
const BY_VERSION: &str = "by = \"version\"\nheader = \"v\"\n";

/// A field that holds a whole number.
struct Number {
    section: &'static str,
    name: &'static str,
    range: (u64, u64),
    /// Lines of the section without which the ends of the range contradict something.
    beside: &'static str,
    /// None: it is not limited.
    default: Option<u64>,
    /// A word that may stand in its place.
    word: Option<&'static str>,
    read: fn(&Manifest) -> Option<u64>,
}

impl Number {
    fn of(section: &'static str, name: &'static str, range: (u64, u64), read: fn(&Manifest) -> Option<u64>) -> Self {
        Self { section, name, range, beside: "", default: None, word: None, read }
    }

    fn beside(self, beside: &'static str) -> Self {
        Self { beside, ..self }
    }

    fn default(self, default: u64) -> Self {
        Self { default: Some(default), ..self }
    }

    fn word(self, word: &'static str) -> Self {
        Self { word: Some(word), ..self }
    }

    /// A manifest with one line in the field's section.
    fn text(&self, line: &str) -> String {
        format!("{MINIMAL}[{}]\n{}{line}\n", self.section, self.beside)
    }
}

fn retry() -> Vec<Number> {
    let default = RetryPolicy::default();
    vec![
        Number::of("retry", "attempts_max", (1, 1_000_000), |m| Some(m.policy.retry.attempts_max.into()))
            .default(default.attempts_max.into()),
        Number::of("retry", "total_ms", (1, MONTH_MS), |m| m.policy.retry.total_ms).beside("first_delay_ms = 1\n"),
        Number::of("retry", "first_delay_ms", (1, DAY_MS), |m| Some(m.policy.retry.first_delay_ms))
            .beside("longest_delay_ms = 86400000\n")
            .default(default.first_delay_ms),
        Number::of("retry", "longest_delay_ms", (1, DAY_MS), |m| Some(m.policy.retry.longest_delay_ms))
            .beside("first_delay_ms = 1\n")
            .default(default.longest_delay_ms),
    ]
}

fn parking() -> Vec<Number> {
    let (release, versions) = (ReleasePolicy::default(), VersionPolicy::default());
    vec![
        Number::of("release", "after_ms", (1, MONTH_MS), |m| m.policy.release.after_ms)
            .beside("longest_ms = 2592000000\n")
            .default(release.after_ms.unwrap())
            .word("never"),
        Number::of("release", "longest_ms", (1, MONTH_MS), |m| Some(m.policy.release.longest_ms))
            .beside("after_ms = 1\n")
            .default(release.longest_ms),
        Number::of("limits", "parked_rows_max", (1, 100_000_000), |m| Some(m.policy.release.rows_max))
            .default(release.rows_max),
        Number::of("limits", "log_lines_per_second", (0, 100_000), |m| Some(m.run.log_lines_per_second.into()))
            .default(100),
        Number::of("limits", "log_lines_burst", (0, 100_000), |m| Some(m.run.log_lines_burst.into())).default(1_000),
        Number::of("park", "delay_ms", (1, DAY_MS), |m| Some(m.policy.park.delay_ms))
            .beside("longest_ms = 86400000\n")
            .default(1_000),
        Number::of("park", "longest_ms", (1, MONTH_MS), |m| Some(m.policy.park.longest_ms))
            .beside("delay_ms = 1\n")
            .default(600_000),
        Number::of("order", "first", (0, i64::MAX.unsigned_abs()), |m| m.policy.versions.unwrap().first)
            .beside(BY_VERSION)
            .default(versions.first.unwrap())
            .word("any"),
        Number::of("order", "gap_longest_ms", (1, MONTH_MS), |m| Some(m.policy.versions.unwrap().gap_longest_ms))
            .beside(BY_VERSION)
            .default(versions.gap_longest_ms),
    ]
}

fn pace() -> Vec<Number> {
    let count = |count: usize| u64::try_from(count).unwrap();
    let default = BreakerPolicy::default();
    vec![
        Number::of("breaker", "window_attempts", (1, 1_000), |m| u64::try_from(m.policy.breaker.unwrap().window).ok())
            .beside("keys_min = 1\n")
            .default(count(default.window)),
        Number::of("breaker", "keys_min", (1, 1_000), |m| u64::try_from(m.policy.breaker.unwrap().keys_min).ok())
            .beside("window_attempts = 1000\n")
            .default(count(default.keys_min)),
        Number::of("breaker", "first_delay_ms", (1, DAY_MS), |m| Some(m.policy.breaker.unwrap().first_delay_ms))
            .beside("longest_delay_ms = 86400000\n")
            .default(default.first_delay_ms),
        Number::of("breaker", "longest_delay_ms", (1, DAY_MS), |m| Some(m.policy.breaker.unwrap().longest_delay_ms))
            .beside("first_delay_ms = 1\n")
            .default(default.longest_delay_ms),
        Number::of("rate", "attempts_per_second", (1, 1_000_000), |m| m.policy.rate.per_second.map(u64::from)),
        Number::of("rate", "keys_max", (1, 100_000), |m| {
            m.policy.rate.keys_max.and_then(|keys| u64::try_from(keys).ok())
        }),
        Number::of("share", "weight", (1, 10_000), |m| Some(m.policy.weight.into())).default(100),
        Number::of("deploy", "probation_ms", (0, DAY_MS), |m| Some(m.deploy.probation_ms)).default(60_000),
        Number::of("deploy", "probation_messages", (0, 1_000_000), |m| Some(m.deploy.probation_messages.into()))
            .default(100),
        Number::of("deploy", "rehearse", (0, 10_000), |m| u64::try_from(m.deploy.rehearse).ok()).default(0),
    ]
}

/// That exactly one thing is wrong with a manifest, and with this line of it.
fn assert_only(text: &str, code: Code, line: &str, says: &[&str]) {
    let report = manifest_report(text);
    let [problem] = report.problems() else { panic!("{line}: {report}") };
    let number = text.lines().position(|other| other == line).unwrap() + 1;
    assert_eq!((problem.code, problem.place.map(|place| place.line)), (code, Some(number)), "{report}");
    let whole = report.to_string();
    assert!(says.iter().all(|part| whole.contains(part)), "{says:?} in {whole}");
}

/// That a name which lacks its last letter is refused with the right one.
fn assert_slip_is_found(section: &str, name: &str, beside: &str) {
    let slip = &name[..name.len() - 1];
    let line = format!("{slip} = 1");
    let text = format!("{MINIMAL}[{section}]\n{beside}{line}\n");
    assert_only(&text, Code::UnknownField, &line, &[slip, &format!("did you mean \"{name}\"?")]);
}

#[test]
fn whole_numbers_have_a_default_and_a_range_in_their_unit() {
    for field in retry().into_iter().chain(parking()).chain(pace()) {
        let Number { section, name, range: (first, last), default, word, read, .. } = field;
        let value = |line: &str| read(&parsed(&field.text(line)));
        assert_eq!(value(""), default, "[{section}] {name}");
        for end in [first, last] {
            assert_eq!(value(&format!("{name} = {end}")), Some(end), "[{section}] {name}");
        }
        let place = format!("\"{name}\" in [{section}]");
        let range = format!("from {first} to {last}");
        for beyond in [i128::from(first) - 1, i128::from(last) + 1] {
            let line = format!("{name} = {beyond}");
            assert_only(&field.text(&line), Code::OutOfRange, &line, &[&place, &range, word.unwrap_or_default()]);
        }
        let line = format!("{name} = 1.5");
        assert_only(&field.text(&line), Code::WrongType, &line, &[&place, "a whole number", word.unwrap_or_default()]);
        assert_slip_is_found(section, name, field.beside);
        let line = format!("{name} = \"soon\"");
        match word {
            None => assert_only(&field.text(&line), Code::WrongType, &line, &[&place, "a whole number"]),
            Some(word) => {
                assert_only(&field.text(&line), Code::InvalidChoice, &line, &[&place, word]);
                assert_eq!(value(&format!("{name} = \"{word}\"")), None, "[{section}] {name}");
            }
        }
    }
}

#[test]
fn parts_have_a_default_and_a_range() {
    type Part = (&'static str, &'static str, (f64, f64), f64, fn(&Manifest) -> f64);
    let parts: [Part; 4] = [
        ("retry", "multiplier", (1.0, 100.0), 2.0, |m| m.policy.retry.multiplier),
        ("retry", "jitter", (0.0, 1.0), 0.2, |m| m.policy.retry.jitter),
        ("breaker", "ratio", (0.0, 0.99), 0.8, |m| m.policy.breaker.unwrap().ratio),
        ("deploy", "trap_ratio_max", (0.0, 1.0), 0.0, |m| m.deploy.trap_ratio_max),
    ];
    for (section, name, (first, last), default, read) in parts {
        let text = |line: &str| format!("{MINIMAL}[{section}]\n{line}\n");
        assert!((read(&parsed(&text(""))) - default).abs() < f64::EPSILON, "{name}");
        for end in [first, last] {
            assert!((read(&parsed(&text(&format!("{name} = {end}")))) - end).abs() < f64::EPSILON, "{name}");
        }
        for beyond in [first - 0.01, last + 0.01] {
            let line = format!("{name} = {beyond:.2}");
            assert_only(&text(&line), Code::OutOfRange, &line, &[name, &format!("from {first} to {last}")]);
        }
        let line = format!("{name} = \"a\"");
        assert_only(&text(&line), Code::WrongType, &line, &[name, "a number"]);
        assert_slip_is_found(section, name, "");
    }
}

/// A field that holds one of a few words: each of them, the default first, and what it comes to.
fn assert_words<T: PartialEq + Debug>(
    section: &str,
    name: &str,
    beside: &str,
    words: &[(&str, T)],
    read: fn(&Manifest) -> T,
) {
    let text = |line: &str| format!("{MINIMAL}[{section}]\n{beside}{line}\n");
    assert_eq!(read(&parsed(&text(""))), words[0].1, "[{section}] {name}");
    for (word, expected) in words {
        assert_eq!(read(&parsed(&text(&format!("{name} = \"{word}\"")))), *expected, "[{section}] {name}");
        let line = format!("{name} = \"{}\"", &word[..word.len() - 1]);
        assert_only(&text(&line), Code::InvalidChoice, &line, &[name, &format!("did you mean \"{word}\"?")]);
    }
    let line = format!("{name} = true");
    assert_only(&text(&line), Code::WrongType, &line, &[name, "a string"]);
    assert_slip_is_found(section, name, beside);
}

#[test]
fn choices_have_a_default_and_know_their_words() {
    let ends =
        [("park-key", OnExhausted::ParkKey), ("dead-letter", OnExhausted::DeadLetter), ("halt", OnExhausted::Halt)];
    assert_words("retry", "on_exhausted", "", &ends, |m| m.policy.on_exhausted);
    let gaps = [("go-on", OnGap::GoOn), ("dead-letter", OnGap::DeadLetter)];
    assert_words("order", "on_gap", BY_VERSION, &gaps, |m| m.policy.versions.unwrap().on_gap);
}

#[test]
fn switches_are_on_unless_they_are_turned_off() {
    for (section, name, read) in [
        ("release", "on_new_version", (|m| m.policy.release.on_new_version) as fn(&Manifest) -> bool),
        ("breaker", "enabled", |m| m.policy.breaker.is_some()),
    ] {
        let text = |line: &str| format!("{MINIMAL}[{section}]\n{line}\n");
        for (line, expected) in [("", true), ("true", true), ("false", false)] {
            let line = if line.is_empty() { String::new() } else { format!("{name} = {line}") };
            assert_eq!(read(&parsed(&text(&line))), expected, "{line}");
        }
        let line = format!("{name} = 1");
        assert_only(&text(&line), Code::WrongType, &line, &[name, "true or false"]);
        assert_slip_is_found(section, name, "");
    }
}

#[test]
fn sections_are_known_by_their_names() {
    for section in ["order", "deploy", "release", "breaker", "rate", "share", "dead_letters"] {
        let line = format!("[{}]", &section[..section.len() - 1]);
        let hint = format!("did you mean \"{section}\"?");
        assert_only(&format!("{MINIMAL}{line}\n"), Code::UnknownField, &line, &[&hint]);
        let line = format!("{section} = 3");
        assert_only(&format!("{line}\n{MINIMAL}"), Code::WrongType, &line, &[&format!("[{section}]")]);
    }
    assert_eq!(parsed(MINIMAL).policy.rate, RatePolicy::default());
}

#[test]
fn a_shared_subscription_has_no_key_and_an_ordered_one_must_have_one() {
    let shared = MINIMAL.replace("[key]\nsubject_token = 1", "mode = \"shared\"");
    assert_eq!(parsed(&shared).key, Key::None);
    let ordered = MINIMAL.replace("[key]", "mode = \"ordered\"\n[key]");
    assert_eq!(parsed(&ordered), parsed(MINIMAL));
    let keyless = MINIMAL.replace("[key]\nsubject_token = 1\n", "");
    let report = manifest_report(&keyless).to_string();
    assert!(report.contains("section [key] is missing") && report.contains("mode = \"shared\""), "{report}");
    let both = MINIMAL.replace("[key]", "mode = \"shared\"\n[key]");
    assert_only(&both, Code::Conflict, "[key]", &["has no effect with mode = \"shared\"", "remove [key]"]);
    let old = MINIMAL.replace("subject_token = 1", "none = true");
    assert_only(&old, Code::UnknownField, "none = true", &["write mode = \"shared\" in [subscription] instead"]);
    let misspelt = keyless.replace("subjects", "mode = \"shred\"\nsubjects");
    assert_only(&misspelt, Code::InvalidChoice, "mode = \"shred\"", &["did you mean \"shared\"?"]);
    let number = keyless.replace("subjects", "mode = 1\nsubjects");
    assert_only(&number, Code::WrongType, "mode = 1", &["a string"]);
    let slip = MINIMAL.replace("subjects", "mod = \"ordered\"\nsubjects");
    assert_only(&slip, Code::UnknownField, "mod = \"ordered\"", &["did you mean \"mode\"?"]);
}

#[test]
fn an_order_by_version_says_where_the_version_is_and_needs_a_key() {
    let order = |lines: &str| format!("{MINIMAL}[order]\n{lines}\n");
    let header = parsed(&order("by = \"version\"\nheader = \"rev\""));
    assert_eq!(header.entity_version, Some(VersionSource::Header("rev".into())));
    assert_eq!(header.policy.versions, Some(VersionPolicy::default()));
    let pointer = parsed(&order("by = \"version\"\njson_pointer = \"/meta/rev\""));
    assert_eq!(pointer.entity_version, Some(VersionSource::JsonPointer(JsonPointer::parse("/meta/rev").unwrap())));
    assert_eq!(parsed(&order("by = \"stream\"")), parsed(MINIMAL));

    assert_only(&order("by = \"version\""), Code::MissingField, "[order]", &["header", "json_pointer"]);
    assert_only(&order("by = \"verson\""), Code::InvalidChoice, "by = \"verson\"", &["did you mean \"version\"?"]);
    assert_only(&order("by = 1"), Code::WrongType, "by = 1", &["a string"]);
    for (lines, code, line) in [
        ("header = \"a b\"", Code::InvalidText, "header = \"a b\""),
        ("header = 3", Code::WrongType, "header = 3"),
        ("json_pointer = \"v\"", Code::InvalidPointer, "json_pointer = \"v\""),
        ("json_pointer = 3", Code::WrongType, "json_pointer = 3"),
        ("header = \"v\"\njson_pointer = \"/v\"", Code::Conflict, "json_pointer = \"/v\""),
        ("heder = \"v\"\njson_pointer = \"/v\"", Code::UnknownField, "heder = \"v\""),
    ] {
        assert_only(&order(&format!("by = \"version\"\n{lines}")), code, line, &[]);
    }
    let without = order("header = \"v\"\nfirst = 2");
    assert_only(&without, Code::Conflict, "[order]", &["\"header\" and \"first\"", "by = \"version\""]);
    let shared = order(BY_VERSION).replace("[key]\nsubject_token = 1", "mode = \"shared\"");
    assert_only(&shared, Code::Conflict, "by = \"version\"", &["ordered subscription"]);
}

#[test]
fn dead_letters_go_to_one_sound_subject_that_does_not_lead_back() {
    let with = |subject: &str| format!("{MINIMAL}[dead_letters]\nsubject = \"{subject}\"\n");
    assert_eq!(parsed(MINIMAL).policy.dead_letter_subject, None);
    assert_eq!(parsed(&with("dlq.orders")).policy.dead_letter_subject.as_deref(), Some("dlq.orders"));
    let longest = format!("d{}", ".x".repeat(511));
    assert_eq!(parsed(&with(&longest)).policy.dead_letter_subject.as_deref(), Some(longest.as_str()));
    for bad in ["dlq.*", "dlq.>", "dlq..x", "dlq x", ".", &format!("{longest}.x")] {
        let line = format!("subject = \"{bad}\"");
        assert_only(&with(bad), Code::InvalidSubject, &line, &["without wildcards"]);
    }
    for reserved in ["$JS.API.INFO", "_INBOX.x"] {
        assert_only(&with(reserved), Code::ReservedSubject, &format!("subject = \"{reserved}\""), &["belongs to NATS"]);
    }
    let wrong = with("x").replace("\"x\"", "[\"x\"]");
    assert_only(&wrong, Code::WrongType, "subject = [\"x\"]", &["a string"]);
    assert_slip_is_found("dead_letters", "subject", "");

    let (names, report, text) = directory_report(&[("x.toml", &with("s.dead"))]);
    assert!(names.is_empty() && report.problems().len() == 1, "{report}");
    assert_eq!(
        text,
        "x.toml:8:11: error[PC017]: \"s.dead\" of \"subject\" in [dead_letters] is among what this consumer reads itself, as \"s.>\": its \
         dead letters would come back to it\n  help: name a subject of another stream, or narrow the subscription's subjects\n"
    );
    // A subscription for all of a stream holds what that stream keeps and nothing else.
    let all = with("dlq.orders").replace("\"s.>\"", "\">\"");
    assert!(directory_report(&[("x.toml", &all)]).1.has(Code::SubjectsOverlap), "who knows what the stream keeps?");
    let declared = format!("{all}{}", stream("S", "[\"s.>\"]", ""));
    assert_eq!(directory_report(&[("x.toml", &declared)]).0, ["x"]);
    let kept = format!("{all}{}", stream("S", "[\"s.>\", \"dlq.*\"]", ""));
    assert!(directory_report(&[("x.toml", &kept)]).1.has(Code::SubjectsOverlap));
}
