//! The admin server as others see it: who may ask, what is described, and how a refusal looks.

use anyhow::Result;
use pelton_tests::host::{Host, HostOptions};
use pelton_tests::http::Ask;
use pelton_tests::tools::{self, HostBuild};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, manifest_of};

const TOKEN: &str = "a-token-for-tests-0123456789";

#[tokio::test]
async fn an_address_that_others_can_reach_needs_a_token_or_there_is_no_start() -> Result<()> {
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
    host.write("pelton.toml", b"[admin]\naddress = \"0.0.0.0:0\"\n")?;
    let output = host.run(&["run"])?;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr)?;
    for part in ["PC013", "pelton.toml:2:11", "0.0.0.0:0", "no token", "token_file"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    // A file that holds no token is as good as none.
    host.write("pelton.toml", b"[admin]\naddress = \"0.0.0.0:0\"\ntoken_file = \"admin.token\"\n")?;
    host.write("admin.token", b"too short\n")?;
    let output = host.run(&["run"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = format!("{}{}", String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(
        told.contains("admin.token") && !told.contains("too short"),
        "the file is named, what it holds is not: {told}"
    );
    Ok(())
}

#[tokio::test]
async fn with_a_token_every_request_has_to_show_it() -> Result<()> {
    let mut stage = Stage::with(|options| options.token(TOKEN)).await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    stage.host.start().await?;
    let address = stage.host.address()?;
    let wrong = Ask::get("/status").token("a-token-for-tests-0123456780").send(&address).await?;
    assert_eq!((wrong.status, &wrong.json()?["code"]), (401, &json!("unauthorized")));
    for path in ["/status", "/livez", "/readyz", "/openapi.json", "/parked", "/nothing"] {
        assert_eq!(Ask::get(path).send(&address).await?.status, 401, "{path} without a token");
    }
    let pause = Ask::with_json("POST", "/consumers/ledger/pause", &json!({}));
    assert_eq!(pause.clone().send(&address).await?.status, 401);
    assert_eq!(stage.status_of("ledger").await?["holds"], json!([]), "nothing was done");
    assert_eq!(pause.token(TOKEN).send(&address).await?.status, 200);
    // Who knows the token may come under any name.
    let elsewhere = Ask::get("/status").token(TOKEN).header("Host", "pelton.example.com");
    assert_eq!(elsewhere.send(&address).await?.status, 200);

    // The command line takes it from the configuration, a file or the environment.
    assert_eq!(stage.host.run(&["status"])?.status.code(), Some(0));
    stage.host.write("other.token", b"another-token-0123456789")?;
    let refused = stage.host.run(&["status", "--token-file", "other.token"])?;
    let told = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("--token-file") && told.contains("[unauthorized]") && !told.contains("another-"), "{told}");
    let at = ["status", "--address", address.trim(), "--token-file", "admin.token", "--json"];
    let status: Value = serde_json::from_slice(&stage.host.run(&at)?.stdout)?;
    assert_eq!(status["consumers"][0]["name"], "ledger");
    stage.host.set_environment(&[("PELTON_ADMIN_TOKEN", TOKEN)]);
    assert_eq!(stage.host.run(&["status", "--address", address.trim()])?.status.code(), Some(0));
    assert!(!stage.host.log().contains(TOKEN), "it is never printed");
    Ok(())
}

#[tokio::test]
async fn without_a_token_only_this_machine_is_answered() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    let address = stage.host.address()?;
    let foreign = Ask::get("/status").header("Host", "pelton.example.com").send(&address).await?;
    assert_eq!((foreign.status, &foreign.json()?["code"]), (403, &json!("foreign-host")));
    Ok(())
}

#[tokio::test]
async fn every_route_that_is_described_is_there() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    let address = stage.host.address()?;
    let document = stage.host.get("/openapi.json").await?.json()?;
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    assert!(paths.len() > 15, "{document}");
    for (path, methods) in paths {
        let asked = path.replace("{id}", "7").replace("{sequence}", "7");
        let asked = asked.replace("{name}", "nobody").replace("{consumer}", "nobody").replace("{key}", "a");
        for method in methods.as_object().into_iter().flat_map(|methods| methods.keys()) {
            let answer = match method.as_str() {
                "get" => Ask::get(&asked),
                "put" => Ask::with_json("PUT", &asked, &json!({})),
                "delete" => Ask::with_json("DELETE", &asked, &json!({})),
                _ => Ask::with_json("POST", &asked, &json!({})),
            };
            let answer = answer.send(&address).await?;
            // A refusal of what it is about is an answer of the route; one of the route itself names the description.
            let ours = !answer.body.contains("/openapi.json") || path == "/openapi.json";
            assert!(ours && answer.status != 405, "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
    Ok(())
}

#[tokio::test]
async fn refusals_have_a_code_and_words_whoever_refuses() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    let address = stage.host.address()?;
    let cases = [
        (Ask::get("/nothing"), 404, "not-found"),
        (Ask::get("/parked/ledger/7"), 404, "not-found"),
        (Ask::get("/consumers/nobody/explain?key=a"), 404, "not-found"),
        (Ask::get("/consumers/ledger/explain"), 400, "bad-request"),
        (Ask::get("/parked?limit=x"), 400, "bad-request"),
        (Ask::get("/consumers/ledger/pause"), 405, "wrong-method"),
        (Ask::with_json("POST", "/status", &json!({})), 405, "wrong-method"),
        (Ask::with_json("POST", "/consumers/ledger/pause", &json!({ "why": 1 })), 400, "bad-request"),
        (
            Ask::with_json("POST", "/consumers/ledger/pause", &json!({})).header("Host", "x.example"),
            403,
            "foreign-host",
        ),
    ];
    for (ask, status, code) in cases {
        let told = format!("{ask:?}");
        let answer = ask.send(&address).await?;
        let view = answer.json()?;
        assert_eq!((answer.status, &view["code"]), (status, &json!(code)), "{told}: {view}");
        assert!(view["error"].as_str().is_some_and(|error| !error.is_empty()), "{told}: {view}");
    }
    Ok(())
}

#[tokio::test]
async fn a_host_that_drains_is_alive_and_not_ready() -> Result<()> {
    // The attempt takes longer than the question.
    let mut stage =
        Stage::running_with("hostile", |manifest| manifest.section("[limits]", "timeout_ms = 6000")).await?;
    stage.publish("a", "{\"do\":\"loop\"}").await?;
    stage.wait_status("an attempt runs", "hostile", |entry| entry["running"] == 1).await?;
    stage.host.signal(Signal::TERM)?;
    let waiting = pelton_tests::wait::until("the host says that it stops", SOON, || async {
        let answer = stage.host.get("/readyz").await?;
        Ok((answer.status == 503 && answer.body.contains("stopping")).then_some(answer))
    });
    let answer = waiting.await?;
    assert_eq!(answer.json()?["ok"], false, "{answer:?}");
    assert_eq!(stage.host.get("/livez").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn the_configuration_in_effect_is_printed_with_where_it_is_from() -> Result<()> {
    let mut host = Host::prepare(HostOptions::on("nats://127.0.0.1:1").token(TOKEN).extra("[limits]\ndrain_ms = 77"))?;
    host.manifest("ledger", &manifest_of("ledger").section("[id]", "header = \"event-id\""))?;
    host.set_environment(&[("PELTON_ADMIN_TOKEN", TOKEN)]);
    let output = host.run(&["config", "--json"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let files: Value = serde_json::from_slice(&output.stdout)?;
    let find = |file: usize, name: &str| {
        let settings = files[file]["settings"].as_array().cloned().unwrap_or_default();
        settings.into_iter().find(|setting| setting["name"] == name).unwrap_or_default()
    };
    assert_eq!(find(0, "limits.drain_ms")["value"], 77);
    assert_eq!(find(0, "store.processed_ids_hours")["source"], "default");
    assert_eq!(find(0, "admin.token")["source"], "PELTON_ADMIN_TOKEN");
    assert_eq!(find(1, "id.header")["value"], "event-id");
    let text = String::from_utf8(host.run(&["config"])?.stdout)?;
    assert!(text.contains("limits.drain_ms") && !text.contains(TOKEN), "{text}");
    let changed = String::from_utf8(host.run(&["config", "--changed"])?.stdout)?;
    assert!(changed.contains("limits.drain_ms") && !changed.contains("processed_ids_hours"), "{changed}");
    let script = std::process::Command::new(tools::host(HostBuild::Normal)?).args(["completions", "bash"]).output()?;
    assert!(String::from_utf8(script.stdout)?.contains("dead-letters"));
    Ok(())
}
