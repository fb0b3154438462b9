//! What the command line and the admin address say to what makes no sense, or may not be.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::operate::{never_by_itself, publish, refuses, says, tells, wait_parked};
use crate::stage::Stage;

async fn one_parked() -> Result<Stage> {
    let stage = Stage::running_with("fails", never_by_itself).await?;
    publish(&stage, "a", "retry", 1).await?;
    wait_parked(&stage, "fails", 1).await?;
    Ok(stage)
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_is() -> Result<()> {
    let stage = one_parked().await?;
    let nobody = ["there is no consumer \"nobody\"", "fails"];
    let id = tells(&stage, &["parked"])?[0]["id"].to_string();
    for arguments in [
        &["parked", "list", "nobody"][..],
        &["parked", "show", "nobody", &id],
        &["parked", "release", "nobody", "--all"],
        &["parked", "drop", "nobody", "--key", "a"],
        &["parked", "export", "nobody"],
        &["dead-letters", "list", "nobody"],
        &["dead-letters", "replay", "nobody", "--all"],
        &["dead-letters", "drop", "nobody", "1"],
        &["explain", "nobody", "a"],
        &["consumers", "pause", "nobody"],
        &["consumers", "resume", "nobody"],
    ] {
        refuses(&stage, arguments, 1, &nobody)?;
    }
    refuses(&stage, &["parked", "show", "fails", "99"], 1, &["no parked message 99"])?;
    refuses(&stage, &["parked", "drop", "fails", "99"], 1, &["no parked message 99"])?;
    refuses(&stage, &["parked", "release", "fails", "--key", "b"], 1, &["nothing of key \"b\"", "is parked"])?;
    refuses(&stage, &["dead-letters", "show", "fails", "1"], 1, &["no dead letter with sequence 1"])?;
    let whole = ["has the key \"a\"", "a key is released as a whole"];
    refuses(&stage, &["parked", "release", "fails", "--id", &id], 1, &whole)?;
    refuses(&stage, &["parked", "edit", "fails", &id, "--payload", "no-such-file"], 1, &["no-such-file"])?;
    stage.host.write("large", &vec![b' '; (8 << 20) + 1])?;
    let large = stage.host.path("large").display().to_string();
    refuses(&stage, &["parked", "edit", "fails", &id, "--payload", &large], 1, &["more than 8388608 bytes"])?;
    assert_eq!(tells(&stage, &["parked"])?[0]["payload"], "{\"do\":\"retry\",\"n\":1}", "nothing has changed");
    Ok(())
}

#[tokio::test]
async fn a_command_that_does_not_say_enough_has_status_2() -> Result<()> {
    let stage = one_parked().await?;
    for (arguments, says) in [
        (&["parked", "release", "fails"][..], "--key KEY or --all"),
        (&["parked", "drop", "fails"], "--key KEY or --all"),
        (&["parked", "drop", "fails", "1", "--all"], "cannot be used with"),
        (&["parked", "release", "fails", "--key", "a", "--all"], "cannot be used with"),
        (&["parked", "drop", "fails", "1", "--reason", "gap"], "go with --key or --all"),
        (&["parked", "list", "--reason", "bored"], "exhausted"),
        (&["parked", "list", "--older-than", "10"], "a whole number and a unit"),
        (&["parked", "show", "fails", "first"], "invalid"),
        (&["parked", "edit", "fails", "1"], "--payload"),
        (&["dead-letters", "replay", "fails"], "--key KEY or --all"),
        (&["dead-letters", "replay", "fails", "--all", "--payload", "x"], "SEQUENCE"),
        (&["explain", "fails"], "KEY"),
        (&["consumers", "pause"], "NAME"),
    ] {
        refuses(&stage, arguments, 2, &[says])?;
    }
    assert_eq!(stage.status_of("fails").await?["parked_rows"], 1, "nothing has changed");
    Ok(())
}

/// Asks the admin address with headers and a body of one's own.
async fn ask(
    stage: &Stage,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<(u16, String)> {
    let address = std::fs::read_to_string(stage.host.path("data/admin.address"))?;
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", address.trim()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body)?;
    let asking = tokio::task::spawn_blocking(move || -> Result<(u16, String)> {
        let limit = Some(Duration::from_secs(10));
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(limit).build();
        let mut response = ureq::Agent::new_with_config(config).run(request)?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    });
    asking.await?
}

const JSON: (&str, &str) = ("content-type", "application/json");
const BINARY: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test]
async fn a_request_that_makes_no_sense_is_answered_with_the_right_status() -> Result<()> {
    let stage = one_parked().await?;
    let id = tells(&stage, &["parked"])?[0]["id"].to_string();
    for (path, status, part) in [
        ("/parked?cause=bored", 400, "known are: exhausted"),
        ("/parked?limit=0", 400, "at least 1"),
        ("/parked?after=somewhere", 400, "no place in this list"),
        ("/parked?colour=red", 400, "colour"),
        ("/parked?consumer=nobody", 404, "known are: fails"),
        ("/parked/fails/first", 400, "first"),
        ("/parked/fails/99", 404, "no parked message"),
        ("/dead-letters?cause=bored", 400, "known are: unreadable"),
        ("/dead-letters/fails/7", 404, "no dead letter"),
        ("/consumers/fails/explain", 400, "key"),
    ] {
        let (code, text) = ask(&stage, "GET", path, &[], Vec::new()).await?;
        assert!(code == status && text.contains(part), "{path}: {code} {text}");
    }
    for (path, body, status, part) in [
        ("/parked/fails/release", "{}", 400, "a key, or"),
        ("/parked/fails/release", "{\"key\":\"a\",\"all\":true}", 400, "either"),
        ("/parked/fails/release", "{\"key\":\"b\"}", 404, "nothing of key"),
        ("/parked/fails/drop", "{\"al\":true}", 400, "al"),
        ("/parked/fails/drop", "nonsense", 400, "JSON"),
        ("/dead-letters/fails/replay", "{\"all\":true,\"after\":\"x\"}", 400, "no place"),
        ("/consumers/nobody/pause", "{}", 404, "known are: fails"),
    ] {
        let (code, text) = ask(&stage, "POST", path, &[JSON], body.as_bytes().to_vec()).await?;
        assert!(code == status && text.contains(part), "{path} {body}: {code} {text}");
    }
    let path = format!("/parked/fails/{id}/payload");
    let (code, text) = ask(&stage, "PUT", &path, &[BINARY], vec![0; (8 << 20) + 1]).await?;
    assert!(code == 413 && text.contains("payload"), "{code} {text}");
    assert_eq!(stage.status_of("fails").await?["parked_rows"], 1, "nothing has changed");
    Ok(())
}

#[tokio::test]
async fn a_web_page_can_not_use_the_admin_address() -> Result<()> {
    let stage = one_parked().await?;
    // A form can post these types without asking.
    for kind in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/x-www-form-urlencoded")]] {
        let (code, _) = ask(&stage, "POST", "/parked/fails/release", kind, b"{\"all\":true}".to_vec()).await?;
        assert_eq!(code, 415, "{kind:?}");
    }
    // A name that an attacker has turned to this machine.
    for (method, path) in [("GET", "/parked"), ("POST", "/parked/fails/release")] {
        let (code, _) =
            ask(&stage, method, path, &[JSON, ("host", "pages.example.com")], b"{\"all\":true}".to_vec()).await?;
        assert_eq!(code, 403, "{path}");
    }
    assert_eq!(stage.host.get("/livez").await?.status, 200);
    assert_eq!(stage.status_of("fails").await?["parked_rows"], 1, "nothing has changed");
    Ok(())
}

#[tokio::test]
async fn what_is_no_text_is_shown_in_base64_and_given_as_it_is() -> Result<()> {
    let stage = one_parked().await?;
    let id = tells(&stage, &["parked"])?[0]["id"].to_string();
    let path = format!("/parked/fails/{id}/payload");
    let (code, _) = ask(&stage, "PUT", &path, &[BINARY], vec![0xff, 0x00, 0xfe]).await?;
    assert_eq!(code, 200);
    let shown = tells(&stage, &["parked", "show", "fails", &id])?;
    assert_eq!((&shown["payload"], &shown["payload_base64"]), (&Value::Null, &Value::from("/wD+")));
    assert!(says(&stage, &["parked", "show", "fails", &id])?.contains("3 bytes, in base64"));
    let raw = stage.host.run(&["parked", "show", "fails", &id, "--raw"])?;
    assert_eq!(raw.stdout, [0xff, 0x00, 0xfe]);
    Ok(())
}
