//! Every kind of mistake with its place and its remedy, several at once, and the annotated references kept true.

mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pelton_core::grants::Grants;
use pelton_core::policy::Policy;
use pelton_core::transaction::EffectLimits;

use super::effective::MANIFEST_OWN;
use super::reader::Context;
use super::*;
use crate::telemetry::Format;

const MINIMAL: &str =
    "component = \"x.wasm\"\n[subscription]\nstream = \"S\"\nsubjects = [\"s.>\"]\n[key]\nsubject_token = 1\n";

/// The report on the manifest of consumer `x`.
fn manifest_report(text: &str) -> Report {
    manifest::parse(Path::new("consumers/x.toml"), "x", text).err().unwrap_or_default()
}

fn host_report(text: &str) -> Report {
    HostConfig::parse(Path::new("pelton.toml"), text).err().unwrap_or_default()
}

/// A directory with these manifests, and what loading it says, with the directory's path taken out.
fn directory_report(files: &[(&str, &str)]) -> (Vec<String>, Report, String) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let (manifests, report) = load_directory(directory.path());
    let text = report.to_string().replace(&format!("{}/", directory.path().display()), "");
    (manifests.into_iter().map(|manifest| manifest.name).collect(), report, text)
}

#[test]
fn a_manifest_with_a_dozen_mistakes_reports_all_of_them() {
    let text = r#"component = 7
colour = "red"
[subscription]
stream = "OR DERS"
subjcts = ["orders.>"]
start = "newest"
ack_wait_ms = 10
[key]
subject_token = 0
header = "customer"
[id]
json_pointer = "event/id"
[grants]
emit = ["totals.>", "a..b", "$JS.API.>", 3]
[retry]
attempts_max = 0
first_delay_ms = 1000
longest_delay_ms = 10
multiplier = 0.5
[limits]
timeout_ms = "1s"
memory_bytes = 1024
[config]
list = [1]
[[streams]]
name = "ORDERS"
subjects = []
"#;
    let expected = r#"consumers/x.toml:1:13: error[PC005]: "component" must be a string; it is an integer
  help: write a string
consumers/x.toml:2:1: error[PC003]: unknown field "colour"
  help: fields at the top level: component, component_poll_ms, digest, subscription, key, id, order, grants, state, retry, release, park, breaker, dead_letters, rate, share, limits, isolation, reuse, config, deploy, streams
consumers/x.toml:3:2: error[PC004]: "subjects" in [subscription] is missing
  help: add subjects = ["PATTERN"]; [">"] is all of the stream
consumers/x.toml:4:10: error[PC008]: "stream" in [subscription] can't be "OR DERS"
  help: a stream's name has up to 255 bytes, without white space and none of . * > / \
consumers/x.toml:5:1: error[PC003]: unknown field "subjcts" in [subscription]
  help: did you mean "subjects"?
consumers/x.toml:6:9: error[PC007]: "start" in [subscription] can't be "newest"
  help: did you mean "new"?
consumers/x.toml:7:15: error[PC006]: "ack_wait_ms" in [subscription] must be from 1000 to 3600000 milliseconds; it is 10
  help: choose a value from 1000 to 3600000
consumers/x.toml:9:17: error[PC006]: "subject_token" in [key] must be from 1 to 64 (the first token is 1); it is 0
  help: choose a value from 1 to 64
consumers/x.toml:12:16: error[PC014]: "json_pointer" in [id] can't be "event/id": it does not begin with "/"
  help: write it like "/customer/id" (RFC 6901)
consumers/x.toml:14:21: error[PC009]: "a..b" of "emit" in [grants] is not a subject pattern
  help: write tokens with dots between them, without white space; ">" only at the end; up to 1024 bytes in all
consumers/x.toml:14:29: error[PC010]: "$JS.API.>" of "emit" in [grants] belongs to NATS itself
  help: name subjects that begin neither with "$" nor with "_INBOX" or "_R_"
consumers/x.toml:14:42: error[PC005]: "emit" in [grants] must be a string; it is an integer
  help: write a string
consumers/x.toml:16:16: error[PC006]: "attempts_max" in [retry] must be from 1 to 1000000 attempts; it is 0
  help: choose a value from 1 to 1000000
consumers/x.toml:18:20: error[PC006]: "first_delay_ms" in [retry] is 1000, above "longest_delay_ms", which is 10
  help: lower first_delay_ms or raise longest_delay_ms
consumers/x.toml:19:14: error[PC006]: "multiplier" in [retry] must be from 1 to 100; it is 0.5
  help: choose a value from 1 to 100
consumers/x.toml:21:14: error[PC005]: "timeout_ms" in [limits] must be a whole number; it is a string
  help: write a whole number
consumers/x.toml:22:16: error[PC006]: "memory_bytes" in [limits] must be from 1048576 to 1073741824 bytes; it is 1024
  help: choose a value from 1048576 to 1073741824
consumers/x.toml:24:8: error[PC005]: "list" in [config] must be a string, a number, true or false; it is an array
  help: write a string, a number, true or false
consumers/x.toml:27:12: error[PC008]: "subjects" in [[streams]] is empty
  help: add subjects = ["PATTERN"]: what the stream keeps
"#;
    assert_eq!(manifest_report(text).to_string(), expected);
}

#[test]
fn a_host_configuration_with_several_mistakes_reports_all_of_them() {
    let text = r#"[nats]
url = "http://localhost, nats://ok"
port = 4222
token_file = "no-such-file"
user = "me"
[store]
processed_ids_hours = 1
[admin]
address = "0.0.0.0:7411"
[limits]
executor_threads = -1
[log]
filter = "inof"
format = "xml"
[metrics]
on = true
"#;
    let expected = r#"pelton.toml:2:7: error[PC012]: "http://localhost" is not a NATS URL: its scheme is "http"
  help: write nats://HOST:PORT, or tls://HOST:PORT
pelton.toml:3:8: error[PC011]: "port" in [nats] has no effect without embedded = true
  help: remove it, or set embedded = true
pelton.toml:4:14: error[PC015]: credentials no-such-file can't be read: No such file or directory (os error 2)
  help: correct the path (it is relative to this file) or the file's permissions
pelton.toml:5:8: error[PC011]: "user" in [nats] needs "password_file" beside it
  help: add password_file = "…", or remove user
pelton.toml:7:23: error[PC006]: "processed_ids_hours" in [store] must be from 24 to 8760 hours; it is 1
  help: choose a value from 24 to 8760
pelton.toml:9:11: error[PC013]: "address" in [admin] can't be "0.0.0.0:7411": others can reach it, and there is no token that they would have to show
  help: add token_file = "FILE", or write 127.0.0.1:PORT, [::1]:PORT or "off"
pelton.toml:11:20: error[PC006]: "executor_threads" in [limits] must be from 0 to 64 threads; it is -1
  help: choose a value from 0 to 64
pelton.toml:13:10: error[PC021]: "filter" in [log] can't be "inof": did you mean "info"?
  help: write a level (error, warn, info, debug, trace, off) or target=level, with commas between
pelton.toml:14:10: error[PC007]: "format" in [log] can't be "xml"
  help: choose "text" or "json"
pelton.toml:15:2: error[PC003]: unknown field "metrics"
  help: fields at the top level: nats, store, consumers, admin, limits, log, telemetry, oci
"#;
    assert_eq!(host_report(text).to_string(), expected);
}

/// A manifest that is right but for these lines.
fn manifest_with(stream: &str, subjects: &str, rest: &str) -> String {
    format!(
        "component = \"x.wasm\"\n[subscription]\nstream = \"{stream}\"\nsubjects = {subjects}\n[key]\nsubject_token = 1\n{rest}"
    )
}

fn stream(name: &str, subjects: &str, rest: &str) -> String {
    format!("[[streams]]\nname = \"{name}\"\nsubjects = {subjects}\n{rest}")
}

#[test]
fn manifests_that_contradict_each_other_name_each_other() {
    let orders = manifest_with("ORDERS", "[\"orders.>\"]", &stream("ORDERS", "[\"orders.>\"]", ""));
    let larger = orders.replace("[[streams]]\n", "[[streams]]\nreplicas = 3\n");
    let (names, _, text) = directory_report(&[("b.toml", &larger), ("a.toml", &orders), ("c.toml", &orders)]);
    assert_eq!(names, ["a", "c"]);
    assert_eq!(
        text,
        "b.toml:7:1: error[PC018]: stream \"ORDERS\" is declared otherwise in a.toml: replicas\n  help: make the two sections equal, or keep \
         one: a consumer can read a stream that another declares\n"
    );

    let queue = stream("JOBS", "[\"jobs.>\"]", "retention = \"work-queue\"\n");
    let first = manifest_with("JOBS", "[\"jobs.a\", \"jobs.b\"]", &queue);
    let second = manifest_with("JOBS", "[\"jobs.c\", \"jobs.*\"]", "");
    let apart = manifest_with("JOBS", "[\"jobs.d\"]", "");
    let (names, _, text) =
        directory_report(&[("a.toml", &first), ("b.toml", &second.replace("jobs.c", "x.c")), ("c.toml", &apart)]);
    assert_eq!(names, ["a"], "what a refused one wanted is still contested, until it is put right");
    assert_eq!(
        text,
        "b.toml:4:13: error[PC020]: stream \"JOBS\" keeps nothing that \"x.c\" matches: it is declared in a.toml with [\"jobs.>\"]\n  \
         help: correct the subscription's subjects, or add the subject to the stream\n\
         b.toml:4:20: error[PC019]: \"jobs.*\" overlaps \"jobs.a\" of consumer \"a\" (a.toml), and work-queue stream \"JOBS\" gives each \
         message to one consumer only\n  help: narrow the subjects of one of the two, or declare the stream with retention = \"interest\"\n\
         c.toml:4:13: error[PC019]: \"jobs.d\" overlaps \"jobs.*\" of consumer \"b\" (b.toml), and work-queue stream \"JOBS\" gives each \
         message to one consumer only\n  help: narrow the subjects of one of the two, or declare the stream with retention = \"interest\"\n"
    );
}

#[test]
fn right_manifests_load_whatever_is_wrong_with_others() {
    let (names, report, _) = directory_report(&[
        ("good.toml", MINIMAL),
        ("Bad Name.toml", MINIMAL),
        ("broken.toml", "component = "),
        (".hidden.toml", "not read"),
        ("notes.md", "not read"),
    ]);
    assert_eq!(names, ["good"]);
    let codes: Vec<_> = report.problems().iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::InvalidConsumerName, Code::InvalidToml]);
}

/// What has to be reported for a manifest (with what goes behind [`MINIMAL`]), a host's file, or a directory.
fn cases() -> Vec<(Code, Report)> {
    let behind = |rest: &str| manifest_report(&format!("{MINIMAL}{rest}"));
    let instead = |old: &str, new: &str| manifest_report(&MINIMAL.replace(old, new));
    let nowhere = PathBuf::from("no/such/file.toml");
    let streams = |rest: &str| stream("S", "[\"s.>\"]", rest);
    let new_on_work_queue =
        MINIMAL.replace("[key]", "start = \"new\"\n[key]") + &streams("retention = \"work-queue\"\n");
    vec![
        (Code::FileUnreadable, HostConfig::load(&nowhere).unwrap_err()),
        (Code::FileUnreadable, Manifest::load(&nowhere).unwrap_err()),
        (Code::InvalidToml, behind("a = ")),
        (Code::InvalidToml, behind("[key]\n")),
        (Code::UnknownField, behind("[sate]\n")),
        (Code::UnknownField, behind("[limits]\ntimeout = 3\n")),
        (Code::UnknownField, instead("subject_token = 1", "none = true")),
        (Code::MissingField, instead("component = \"x.wasm\"\n", "")),
        (Code::MissingField, instead("[key]\nsubject_token = 1\n", "")),
        (Code::MissingField, instead("subject_token = 1", "")),
        (Code::MissingField, behind("[order]\nby = \"version\"\n")),
        (Code::MissingField, behind("[[streams]]\nsubjects = [\"s.>\"]\n")),
        (Code::WrongType, behind("[retry]\njitter = \"0.2\"\n")),
        (Code::WrongType, instead("subject_token = 1", "subject_token = \"1\"")),
        (Code::WrongType, behind("[streams]\nname = \"S\"\n")),
        (Code::WrongType, manifest_report(&format!("retry = 3\n{MINIMAL}"))),
        (Code::OutOfRange, behind("[retry]\njitter = 1.5\n")),
        (Code::OutOfRange, behind("[retry]\njitter = nan\n")),
        (Code::OutOfRange, behind("[limits]\ntimeout_ms = 600_001\n")),
        (Code::OutOfRange, behind("[park]\ndelay_ms = 700000\n")),
        (Code::OutOfRange, behind("[retry]\ntotal_ms = 99\n")),
        (Code::OutOfRange, behind("[release]\nafter_ms = 3600001\n")),
        (Code::OutOfRange, behind("[breaker]\nwindow_attempts = 9\n")),
        (Code::OutOfRange, behind("[breaker]\nfirst_delay_ms = 60001\n")),
        (Code::OutOfRange, behind(&streams("max_age_hours = 1\nduplicate_window_ms = 3600001\n"))),
        (
            Code::OutOfRange,
            manifest_report(&MINIMAL.replace("s.>", "s.*").replace("subject_token = 1", "subject_token = 3")),
        ),
        (Code::OutOfRange, host_report("[nats]\nembedded = true\nport = 65536\n")),
        (Code::InvalidChoice, behind("[state]\nscope = \"keys\"\n")),
        (Code::InvalidChoice, instead("[key]\nsubject_token = 1", "mode = \"share\"")),
        (Code::InvalidChoice, behind("[release]\nafter_ms = \"nver\"\n")),
        (Code::InvalidText, instead("\"x.wasm\"", "\"\"")),
        (Code::InvalidText, behind("[id]\nheader = \"a:b\"\n")),
        (Code::InvalidText, instead("[\"s.>\"]", "[]")),
        (Code::InvalidSubject, instead("s.>", "s.>.x")),
        (Code::InvalidSubject, instead("s.>", "s.new*")),
        (Code::InvalidSubject, behind("[dead_letters]\nsubject = \"dlq.*\"\n")),
        (Code::ReservedSubject, behind("[grants]\nemit = [\"_INBOX.>\"]\n")),
        (Code::ReservedSubject, behind("[dead_letters]\nsubject = \"$JS.API.x\"\n")),
        (Code::ReservedSubject, behind(&stream("J", "[\"$JS.>\"]", ""))),
        (Code::Conflict, instead("subject_token = 1", "subject_token = 1\nheader = \"a\"")),
        (Code::Conflict, behind("[id]\nheader = \"a\"\njson_pointer = \"/a\"\n")),
        (Code::Conflict, host_report("[nats]\nembedded = true\nurl = \"nats://a\"\n")),
        (Code::Conflict, host_report("[nats]\nserver_binary = \"nats-server\"\n")),
        (Code::Conflict, directory_report(&[("x.toml", &new_on_work_queue)]).1),
        (Code::InvalidUrl, host_report("[nats]\nurl = \"nats://me:secret@host\"\n")),
        (Code::InvalidAddress, host_report("[admin]\naddress = \"7411\"\n")),
        (Code::InvalidPointer, instead("subject_token = 1", "json_pointer = \"/a~b\"")),
    ]
}

/// The same for what lies between files, or outside them.
fn cases_between_files() -> Vec<(Code, Report)> {
    let behind = |rest: &str| manifest_report(&format!("{MINIMAL}{rest}"));
    let instead = |old: &str, new: &str| manifest_report(&MINIMAL.replace(old, new));
    let streams = |rest: &str| stream("S", "[\"s.>\"]", rest);
    let alone = |rest: &str| directory_report(&[("x.toml", &format!("{MINIMAL}{rest}"))]).1;
    vec![
        (Code::InvalidComponent, instead("x.wasm", "oci://host/orders")),
        (Code::InvalidComponent, instead("x.wasm", "https://host/x.wasm")),
        (Code::Conflict, manifest_report(&format!("component_poll_ms = 5000\n{MINIMAL}"))),
        (Code::OutOfRange, instead("\"x.wasm\"", "\"oci://host/orders:1\"\ncomponent_poll_ms = 999")),
        (Code::NamedFileUnreadable, host_report("[nats]\ncredentials_file = \"no-such.creds\"\n")),
        (Code::NamedFileUnreadable, parsed(MINIMAL).check_files()),
        (Code::InvalidConsumerName, directory_report(&[("-x.toml", MINIMAL)]).1),
        (Code::SubjectsOverlap, instead("[\"s.>\"]", "[\"s.>\", \"s.a\"]")),
        (Code::SubjectsOverlap, alone("[dead_letters]\nsubject = \"s.dead\"\n")),
        (Code::SubjectsOverlap, alone(&format!("{}{}", streams(""), stream("T", "[\"*.a\"]", "")))),
        (Code::StreamDeclaredTwice, behind(&format!("{0}{0}", streams("")))),
        (
            Code::StreamDeclaredTwice,
            directory_report(&[
                ("a.toml", &format!("{MINIMAL}{}", streams(""))),
                ("b.toml", &format!("{MINIMAL}{}", streams("max_bytes = 1\n"))),
            ])
            .1,
        ),
        (
            Code::WorkQueueShared,
            directory_report(&[
                ("a.toml", &format!("{MINIMAL}{}", streams("retention = \"work-queue\"\n"))),
                ("b.toml", MINIMAL),
            ])
            .1,
        ),
        (Code::SubjectOutsideStream, alone(&stream("S", "[\"t.>\"]", ""))),
        (Code::InvalidFilter, host_report("[log]\nfilter = \"pelton=loud\"\n")),
        (Code::DirectoryUnreadable, load_directory(Path::new("no/such/directory")).1),
    ]
}

fn parsed(text: &str) -> Manifest {
    manifest::parse(Path::new("consumers/x.toml"), "x", text).map(|loaded| loaded.manifest).unwrap()
}

#[test]
fn each_code_has_a_case_and_a_way_out() {
    let mut seen = BTreeSet::new();
    for (code, report) in cases().into_iter().chain(cases_between_files()) {
        let codes: Vec<_> = report.problems().iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [code], "{report}");
        for problem in report.problems() {
            assert!(!problem.help.is_empty() && !problem.message.is_empty(), "{report}");
        }
        seen.insert(code);
    }
    assert_eq!(seen, Code::ALL.into());
    assert!(Code::ALL.iter().enumerate().all(|(index, code)| code.to_string() == format!("PC{:03}", index + 1)));
}

#[test]
fn defaults_are_the_cores_own() {
    let manifest = parsed(MINIMAL);
    assert_eq!(manifest.policy, Policy::default());
    assert_eq!(manifest.effects, EffectLimits::default());
    assert_eq!(manifest.run, RunLimits::default());
    assert_eq!(manifest.grants, Grants::default());
    assert_eq!((&manifest.key, &manifest.id), (&Key::SubjectToken(1), &IdSource::MessageId));
    assert_eq!(manifest.entity_version, None);
    assert_eq!((manifest.subscription.start, manifest.subscription.payload), (Start::All, Payload::Bytes));
    assert_eq!(manifest.component, ComponentSource::Path("consumers/x.wasm".into()));
    assert_eq!(manifest.component_poll_ms, 0);
    assert_eq!((manifest.config, manifest.streams), (BTreeMap::new(), Vec::new()));
}

#[test]
fn a_component_can_come_over_the_network_and_is_not_asked_for_by_a_check() {
    let of = |component: &str, rest: &str| {
        parsed(&MINIMAL.replace("\"x.wasm\"", &format!("\"{component}\"\ncomponent_poll_ms = {rest}")))
    };
    let tag = of("oci://localhost:5000/orders:1", "30000");
    assert_eq!((tag.component.to_string().as_str(), tag.component_poll_ms), ("oci://localhost:5000/orders:1", 30_000));
    assert!(tag.check_files().is_empty() && of("nats://plugins/orders", "0").check_files().is_empty());
    let report = manifest_report(&MINIMAL.replace("x.wasm", "s3://plugins/orders")).to_string();
    assert!(["a path", "oci://", "nats://", "\"s3\""].iter().all(|part| report.contains(part)), "{report}");
}

#[test]
fn an_empty_host_configuration_is_the_documented_default() {
    let config = HostConfig::parse(Path::new("etc/pelton.toml"), "").unwrap();
    let server = NatsServer::External { urls: vec!["nats://127.0.0.1:4222".into()] };
    assert_eq!(config.nats, NatsConfig { server, credentials: Credentials::None });
    assert_eq!(
        (config.store.path.as_path(), config.consumers.as_path()),
        (Path::new("etc/data"), Path::new("etc/consumers"))
    );
    assert_eq!(config.admin.map(|admin| admin.address.to_string()).as_deref(), Some("127.0.0.1:7411"));
    assert_eq!((config.log.filter.as_str(), config.log.format), ("info", Format::Text));
}

#[test]
fn the_embedded_server_and_credentials_are_read() {
    let embedded = |binary: &str| {
        let text =
            format!("[nats]\nembedded = true\nserver_binary = \"{binary}\"\nport = 4333\n[admin]\naddress = \"off\"\n");
        HostConfig::parse(Path::new("etc/pelton.toml"), &text).unwrap()
    };
    let server = |binary: &str| NatsServer::Embedded { binary: binary.into(), port: 4_333 };
    assert_eq!((embedded("nats-server").nats.server, embedded("x").admin), (server("nats-server"), None));
    assert_eq!(embedded("../bin/nats").nats.server, server("etc/../bin/nats"));

    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    let file = directory.path().join("pelton.toml");
    for (fields, credentials) in [
        ("credentials_file = \"secret\"", Credentials::CredsFile(secret.clone())),
        ("nkey_seed_file = \"secret\"", Credentials::NkeySeedFile(secret.clone())),
        ("token_file = \"secret\"", Credentials::TokenFile(secret.clone())),
        (
            "user = \"me\"\npassword_file = \"secret\"",
            Credentials::UserPassword { user: "me".into(), password_file: secret.clone() },
        ),
    ] {
        std::fs::write(&file, format!("[nats]\n{fields}\n")).unwrap();
        assert_eq!(HostConfig::load(&file).unwrap().nats.credentials, credentials);
    }
    let both = HostConfig::parse(&file, "[nats]\ntoken_file = \"secret\"\nnkey_seed_file = \"secret\"\n").unwrap_err();
    assert!(both.has(Code::Conflict) && both.problems().len() == 1, "{both}");
    let embedded = HostConfig::parse(&file, "[nats]\nembedded = true\ntoken_file = \"secret\"\n").unwrap_err();
    assert!(embedded.has(Code::Conflict) && embedded.problems().len() == 1, "{embedded}");
}

#[test]
fn free_values_are_read_as_text() {
    let config = "[config]\ntext = \"a b\"\nwhole = 1_000\nhex = 0xff\nbelow = -3\npart = 0.10\nyes = true\n";
    let config: Vec<_> =
        parsed(&format!("{MINIMAL}{config}")).config.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(config, ["below=-3", "hex=255", "part=0.10", "text=a b", "whole=1000", "yes=true"]);
}

#[test]
fn places_count_characters_and_lines_as_editors_do() {
    let report = manifest_report(&format!("# ä\r\n{MINIMAL}[config]\n\"ä\" = \"ö\"\n[park]\n\"ü\" = \"ö\" # x\n"));
    assert_eq!(report.problems()[0].place, Some(Place { line: 11, column: 1 }), "{report}");
}

#[test]
fn a_manifest_can_be_compared_part_by_part() {
    let (before, after) = (parsed(MINIMAL), parsed(&format!("{MINIMAL}[retry]\njitter = 0\n")));
    assert!(before != after && before.policy != after.policy);
    assert!(before.subscription == after.subscription && before.effects == after.effects);
}

#[test]
fn instances_are_fresh_unless_a_manifest_says_otherwise() {
    use pelton_core::policy::{AUDIT_ONE_IN, Isolation, Reuse};
    let isolation = |top: &str, reuse: &str| parsed(&format!("{top}\n{MINIMAL}[reuse]\n{reuse}\n")).isolation;
    assert_eq!(isolation("", ""), Isolation::Fresh);
    assert_eq!(isolation("isolation = \"reuse\"", ""), Isolation::Reuse(Reuse::default()));
    let audited = Reuse { audit_one_in: Some(AUDIT_ONE_IN), ..Reuse::default() };
    assert_eq!(isolation("isolation = \"audited\"", ""), Isolation::Reuse(audited));
    let all = Reuse { invocations_max: 5, age_max_ms: 6, audit_one_in: Some(7) };
    let text = "invocations_max = 5\nage_max_ms = 6\naudit_one_in = 7";
    assert_eq!(isolation("isolation = \"audited\"", text), Isolation::Reuse(all));
}

#[test]
fn a_bound_of_reuse_without_the_mode_that_it_belongs_to_is_refused() {
    for (top, line) in [
        ("", "invocations_max = 5"),
        ("isolation = \"fresh\"", "age_max_ms = 5"),
        ("", "audit_one_in = 5"),
        ("isolation = \"reuse\"", "audit_one_in = 5"),
    ] {
        let report = manifest_report(&format!("{top}\n{MINIMAL}[reuse]\n{line}\n"));
        assert_eq!(report.problems().len(), 1, "{report}");
        assert_eq!(report.problems()[0].code, Code::Conflict, "{report}");
        assert!(report.to_string().contains("above the first section"), "{report}");
    }
}

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example").join(path)
}

/// The fields of a reference, those in comments too, each after its section's name and a dot.
fn written_fields(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut fields = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).into();
            fields.insert(format!(".{section}"));
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ")
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            fields.insert(format!("{section}.{name}"));
        }
    }
    fields
}

#[test]
fn the_reference_of_the_host_is_right_and_whole() {
    let file = example("pelton.toml");
    let config = HostConfig::load(&file).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config, HostConfig::parse(&file, "").unwrap(), "the reference shows the defaults");
    let text = std::fs::read_to_string(&file).unwrap();
    let context = Context::new(&file, &text);
    host_read::read(&context, false).unwrap();
    assert_eq!(context.known_fields(), written_fields(&text));
}

#[test]
fn the_reference_of_manifests_is_right_and_whole() {
    let file = example("consumers/orders.toml");
    let manifest = Manifest::load(&file).unwrap_or_else(|report| panic!("{report}"));
    let defaults = manifest::parse(&file, "orders", MANIFEST_OWN).map(|loaded| loaded.manifest).unwrap();
    assert_eq!(manifest, defaults, "the reference shows the defaults");
    let text = std::fs::read_to_string(&file).unwrap();
    let context = Context::new(&file, &text);
    manifest_read::read(&context, "orders").unwrap();
    let mut known = context.known_fields();
    known.insert("config.threshold".into());
    assert_eq!(known, written_fields(&text));
}
