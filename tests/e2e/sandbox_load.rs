//! Ten consumers of one stream; one of them is given one broken component after the other while all serve. Each is refused with its reason, the
//! version before goes on, and the nine others notice nothing.

use std::path::Path;

use anyhow::Result;
use pelton_tests::random::Random;
use pelton_tests::tools;
use serde_json::Value;

use crate::sandbox::Crowd;
use crate::stage::SOON;

/// A broken component: what it is, its bytes, the log's word for it, and a part of what the operator is told.
struct Broken {
    bytes: Vec<u8>,
    kind: &'static str,
    words: &'static str,
}

/// The largest component of the host in these tests, in bytes.
const COMPONENT_BYTES_MAX: usize = 2 << 20;

fn broken_components() -> Result<Vec<Broken>> {
    let whole = std::fs::read(tools::guest("ledger")?)?;
    let guest = |name: &str| -> Result<Vec<u8>> { Ok(std::fs::read(tools::guest(name)?)?) };
    let mut random = Random::new(7);
    let noise: Vec<u8> = (0..50_000).map(|_| random.draw() as u8).collect();
    let behind_the_header = [b"\0asm\x0d\0\x01\0", &noise[..]].concat();
    let mut too_large = whole.clone();
    too_large.resize(COMPONENT_BYTES_MAX + 1, 0);
    let broken = |kind, words, bytes| Broken { bytes, kind, words };
    Ok(vec![
        broken("empty", "the component file is empty", Vec::new()),
        broken("not-wasm", "this is not WebAssembly", noise),
        broken("does-not-compile", "can't be compiled", behind_the_header),
        broken("does-not-compile", "can't be compiled", whole[..whole.len() / 2].to_vec()),
        broken("core-module", "a core WebAssembly module", b"\0asm\x01\0\0\0".to_vec()),
        broken("text", "WebAssembly in text form", b"(component)".to_vec()),
        broken("wrong-world", "the component is not a plug-in", guest("wrong-world")?),
        broken("unknown-import", "`acme:db/sql@1.0.0`", guest("unknown-import")?),
        broken("not-granted", "which this consumer was not granted", guest("needs-sockets")?),
        broken("unreadable", "limits.component_bytes_max = 2097152", too_large),
        broken("huge-function", "function 0 of core module", with_huge_function(&whole)),
        broken("trial-trap", "a trial instance failed before any message", guest("init-trap")?),
        broken("trial-timeout", "ran past 5000 ms", guest("init-loop")?),
    ])
}

/// A sound component and behind it one more core module, which nobody uses: its only function is more than a MiB of
/// instructions that do nothing.
fn with_huge_function(component: &[u8]) -> Vec<u8> {
    let section = |id: u8, body: &[u8]| [&[id][..], &leb128(body.len()), body].concat();
    // No locals, many times `nop`, `end`.
    let mut function = vec![0];
    function.resize(5 << 18, 1);
    function.push(0x0b);
    let code = [&[1][..], &leb128(function.len()), &function].concat();
    // One type, without parameters and results; one function of it.
    let module = [b"\0asm\x01\0\0\0", &section(1, &[1, 0x60, 0, 0])[..], &section(3, &[1, 0]), &section(10, &code)];
    [component, &section(1, &module.concat())].concat()
}

/// A number as WebAssembly writes it.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[tokio::test]
async fn nine_consumers_beside_one_with_broken_components_are_unharmed_and_its_version_before_goes_on() -> Result<()> {
    let extra = format!("[limits]\ncomponent_bytes_max = {COMPONENT_BYTES_MAX}");
    let mut crowd = Crowd::with("ledger", &extra, |manifest| manifest.quick_retries(3)).await?;
    let before = crowd.stage.status_of("hostile").await?["version"].clone();
    let mut numbers = Vec::new();
    for Broken { bytes, kind, words } in broken_components()? {
        crowd.stage.host.write("consumers/hostile.wasm", &bytes)?;
        let told = |entry: &Value| entry["problems"].to_string().contains(words);
        let status = crowd.stage.wait_status("the refusal is told", "hostile", told).await?;
        assert_eq!((&status["version"], &status["phase"]), (&before, &"running".into()), "{kind}: {status}");
        let log = crowd.stage.host.log();
        let line = log.lines().rev().find(|line| line.contains(words)).unwrap_or_default();
        assert!(line.contains("hostile"), "{kind}: the log says {words:?} in {line:?}");
        if kind != "unreadable" {
            assert!(line.contains(&format!("kind=\"{kind}\"")) && line.contains("consumer=\"hostile\""), "{line}");
        }
        // All ten go on.
        crowd.publish("a", "").await?;
        for event in crowd.events(10).await? {
            numbers.push(event.json::<Value>()?["count"].clone());
        }
    }
    crowd.the_nine_are_unharmed().await?;
    let counted: Vec<Value> = (1..=numbers.len()).map(Value::from).collect();
    assert_eq!(numbers, counted, "the version before has applied each once");
    // A whole one is taken, and goes on where the version before was.
    crowd.stage.host.write("consumers/hostile.wasm", &tools::stamped(Path::new(&tools::guest("ledger")?), "whole")?)?;
    let serves = |entry: &Value| entry["version"] != before && entry["problems"].as_array().is_some_and(Vec::is_empty);
    crowd.stage.wait_status("the whole one serves", "hostile", serves).await?;
    crowd.publish("a", "").await?;
    let events = crowd.events(10).await?;
    assert_eq!(events[0].json::<Value>()?["count"], numbers.len() + 1);
    crowd.stage.host.wait_log("deployed", SOON).await?;
    crowd.the_nine_are_unharmed().await
}
