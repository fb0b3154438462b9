//! The commands for a plug-in's author, without a broker: `pelton invoke` and `pelton test`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use pelton_tests::host::{Host, HostOptions};
use pelton_tests::tools;
use serde_json::{Value, json};

/// Runs `pelton` in a directory, with a text as its standard input.
pub(crate) fn pelton(directory: &Path, arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = Command::new(tools::host(tools::HostBuild::Normal)?);
    command.args(arguments).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A command that refuses its arguments does not read.
    _ = child.stdin.take().context("a pipe")?.write_all(input.as_bytes());
    Ok(child.wait_with_output()?)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn invoke(guest: &str, arguments: &[&str], input: &str) -> Result<(Option<i32>, Value, String)> {
    let directory = tempfile::tempdir()?;
    let component = tools::guest(guest)?;
    let all: Vec<&str> = ["invoke", component.to_str().context("UTF-8")?].iter().chain(arguments).copied().collect();
    let output = pelton(directory.path(), &all, input)?;
    let effects = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok((output.status.code(), effects, text(&output.stderr)))
}

#[test]
fn invoke_prints_what_a_message_does_and_its_state_can_be_given_again() -> Result<()> {
    let message = r#"{"subject":"in.a","json":{"n":5},"headers":{"x":"1"},"sequence":7}"#;
    let arguments = ["--message", "-", "--key", "a", "--id", "m-1", "--now", "2026-01-31T12:00:00Z"];
    let (status, first, errors) = invoke("ledger", &arguments, message)?;
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(first["outcome"], "applied");
    let seen = json!({ "id": "m-1", "subject": "in.a", "key": "a", "sequence": 7, "attempt": 1 });
    assert_eq!((&first["message"], &first["state_before"]), (&seen, &json!({})));
    assert_eq!(first["state_after"]["ledger"]["count"], 1);
    assert_eq!(first["now_ms"], 1_769_860_800_000_u64);
    let event = &first["events"][0];
    assert_eq!((&event["subject"], &event["json"]["n"]), (&json!("ledger.out.a"), &json!(5)));
    assert_eq!(event["headers"]["pelton-causation-id"], "m-1");
    assert!(first["memory_bytes"].as_u64() > Some(0) && first["time_us"].as_u64() > Some(0), "{first}");

    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), first["state_after"].to_string())?;
    let state = file.path().to_str().context("UTF-8")?;
    let arguments = ["--payload", "-", "--subject", "in.a", "--key", "a", "--state", state];
    let (status, second, errors) = invoke("ledger", &arguments, "{\"n\":6}")?;
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(second["state_before"], first["state_after"]);
    assert_eq!(second["state_after"]["ledger"]["count"], 2);
    Ok(())
}

#[test]
fn invoke_fails_with_the_handler_and_leaves_nothing_but_its_lines() -> Result<()> {
    for (behaviour, outcome, reason) in [
        ("retry", "retry", "asked to retry"),
        ("reject", "reject", "asked to reject"),
        ("park", "park", "asked to park"),
        ("panic", "trap", "asked to panic"),
        ("spin", "timeout", "1000 ms"),
        ("many-puts", "limit", "writes_max"),
    ] {
        let payload = json!({ "do": behaviour }).to_string();
        let (status, effects, errors) =
            invoke("fails", &["--payload", "-", "--subject", "in.a", "--key", "a"], &payload)?;
        assert_eq!((status, effects["outcome"].as_str()), (Some(1), Some(outcome)), "{errors}");
        assert!(effects["reason"].to_string().contains(reason), "{effects}");
        assert_eq!((&effects["state_after"], &effects["events"]), (&json!({}), &json!([])));
    }
    let (_, effects, _) = invoke("fails", &["--payload", "-", "--subject", "in.a"], r#"{"do":"panic"}"#)?;
    let stderr = effects["logs"].as_array().context("lines")?.iter().any(|line| line["source"] == "stderr");
    assert!(stderr, "{effects}");
    Ok(())
}

#[test]
fn what_invoke_cannot_use_is_named_with_the_way_out() -> Result<()> {
    let plain = ["--message", "-"];
    for (arguments, input, parts) in [
        (&plain[..], "no json", &["standard input is not JSON", "--payload"][..]),
        (&plain, r#"{"sub":"a"}"#, &["subject: is missing", "sub: unknown field", "did you mean \"subject\"?"]),
        (&plain, r#"{"subject":"a.*"}"#, &["subject", "without wildcards"]),
        (&plain, r#"{"subject":"a","json":1,"payload":"x"}"#, &["only one of json"]),
        (&["--payload", "-"], "x", &["no subject", "--subject"]),
        (&[], "", &["--message"]),
        (&["--message", "-", "--config", "x"], "{}", &["NAME=VALUE"]),
        (&["--message", "-", "--now", "noon"], "{}", &["--now", "2026-01-31T12:00:00Z"]),
        (&["--message", "-", "--state", "absent.json"], r#"{"subject":"a"}"#, &["absent.json can't be read"]),
        (&["--message", "-", "--manifest", "absent.toml"], r#"{"subject":"a"}"#, &["absent.toml", "PC001"]),
    ] {
        let (status, _, errors) = invoke("ledger", arguments, input)?;
        assert_eq!(status, Some(2), "{arguments:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }
    let (status, _, errors) = invoke("wrong-world", &["--message", "-"], r#"{"subject":"a"}"#)?;
    assert!(status == Some(2) && errors.contains("pelton:consumer/handler"), "{errors}");
    Ok(())
}

/// A directory with one consumer of a guest, and a file of cases.
fn project(guest: &str, cases: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_path_buf();
    std::fs::create_dir_all(path.join("consumers"))?;
    std::fs::create_dir_all(path.join("tests"))?;
    tools::replace_file(&tools::guest(guest)?, &path.join(format!("consumers/{guest}.wasm")))?;
    let manifest = format!(
        "component = \"{guest}.wasm\"\n[subscription]\nstream = \"IN\"\nsubjects = [\"in.>\"]\n[key]\nsubject_token = 2\n\
         [grants]\nemit = [\"out.>\"]\n[config]\nout = \"out\"\n"
    );
    std::fs::write(path.join(format!("consumers/{guest}.toml")), manifest)?;
    std::fs::write(path.join("tests/cases.toml"), cases)?;
    Ok((directory, path))
}

const CASES: &str = r#"
[[case]]
name = "one is counted"
state = { count = 1 }
message = { subject = "in.a" }
expect = { state = { count = 2 }, events = [{ subject = "out.a" }] }

[[case]]
name = "a wrong number"
state = { count = 1 }
message = { subject = "in.a" }
expect = { state = { count = 3 }, events = [] }
"#;

#[test]
fn cases_are_run_like_tests_and_what_came_otherwise_is_shown() -> Result<()> {
    let (_directory, path) = project("versioned-a", CASES)?;
    let output = pelton(&path, &["test"], "")?;
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}{}", text(&output.stderr));
    for part in [
        "case one is counted ... ok",
        "case a wrong number ... FAILED",
        "-   \"count\": 3",
        "+   \"count\": 2",
        "events (- expected, + came):",
        "result: FAILED. 1 passed, 1 failed",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    let output = pelton(&path, &["test", "--filter", "one is"], "")?;
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).ends_with("result: ok. 1 passed, 0 failed, 1 filtered out\n"), "{output:?}");
    let output = pelton(&path, &["test", "--json"], "")?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["passed"], &report["failed"]), (&json!(1), &json!(1)));
    assert_eq!(report["cases"][1]["differences"][0]["what"], "state");
    Ok(())
}

#[test]
fn cases_with_mistakes_are_refused_by_file_case_and_field() -> Result<()> {
    let cases = CASES.replace("events = []", "evnts = []").replace(
        "subject = \"in.a\" }\nexpect = { state = { count = 2",
        "subject = \"in.a\", key = \"b\" }\nexpect = { state = { count = 2",
    );
    let (_directory, path) = project("versioned-a", &cases)?;
    let output = pelton(&path, &["test"], "")?;
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("cases.toml: case \"a wrong number\".expect.evnts: unknown field; did you mean \"events\"?"),
        "{errors}"
    );
    std::fs::write(path.join("tests/cases.toml"), cases.replace("evnts", "events"))?;
    let errors = text(&pelton(&path, &["test"], "")?.stderr);
    assert!(
        errors.contains("message.key: is \"b\", but by the manifest's rule the message has the key \"a\""),
        "{errors}"
    );
    let nowhere = pelton(&path, &["test", "tests"], "")?;
    assert!(nowhere.status.code() == Some(2) && text(&nowhere.stderr).contains("pelton new"), "{nowhere:?}");
    Ok(())
}

#[test]
fn the_examples_pass_their_cases() -> Result<()> {
    for (example, consumers) in [("examples/tickets", &["tickets"][..]), ("examples/retail", &["totals", "notify"])] {
        let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
        for consumer in consumers {
            host.component(consumer, &tools::example(consumer)?)?;
            host.example_manifest(example, consumer)?;
        }
        std::fs::create_dir(host.path("tests"))?;
        let mut files = 0;
        for file in std::fs::read_dir(tools::root().join(example).join("tests"))? {
            let file = file?;
            std::fs::copy(file.path(), host.path("tests").join(file.file_name()))?;
            files += 1;
        }
        assert_eq!(files, consumers.len(), "{example}");
        let output = pelton(&host.path(""), &["test"], "")?;
        assert_eq!(output.status.code(), Some(0), "{example}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    Ok(())
}

#[test]
fn what_a_build_needs_is_named_with_how_to_get_it_and_nothing_is_made_twice() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let made = pelton(directory.path(), &["new", "orders"], "")?;
    assert!(made.status.success(), "{}", text(&made.stderr));
    let again = pelton(directory.path(), &["new", "orders"], "")?;
    assert!(again.status.code() == Some(2) && text(&again.stderr).contains("orders exists already"), "{again:?}");
    let cobol = pelton(directory.path(), &["new", "bills", "--lang", "cobol"], "")?;
    assert!(
        cobol.status.code() == Some(2) && text(&cobol.stderr).contains("there are templates for rust"),
        "{cobol:?}"
    );
    let checked = pelton(&directory.path().join("orders"), &["check"], "")?;
    assert!(text(&checked.stderr).contains("build the component"), "only the component is missing: {checked:?}");

    let mut build = Command::new(tools::host(tools::HostBuild::Normal)?);
    build.arg("build").current_dir(directory.path().join("orders"));
    // A compiler that has no targets at all.
    let output = build.env("RUSTC", "false").output()?;
    let errors = text(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("run `rustup target add wasm32-wasip2`"), "{errors}");
    let output = build.env("RUSTC", "/nowhere/rustc").output()?;
    let errors = text(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("install Rust from https://rustup.rs"), "{errors}");
    Ok(())
}
