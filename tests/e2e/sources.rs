//! Components that come over the network: from a real registry and from an object store, on good days and on bad ones.

use anyhow::{Context, Result};
use pelton_tests::host::HostOptions;
use pelton_tests::manifest::Manifest;
use pelton_tests::registry::{PASSWORD, Registry, USER, authority, digest, manifest as image_manifest};
use pelton_tests::{tools, wait};
use serde_json::Value;

use crate::stage::{QUIET, SOON, Stage};

/// The guest `ledger`, as another version for each label.
fn component(label: &str) -> Result<Vec<u8>> {
    tools::stamped(&tools::guest("ledger")?, label)
}

/// The consumer `ledger` with a component from there.
fn manifest(source: &str) -> Manifest {
    let manifest = Manifest::new(source, "IN", "in.>").emits("out.>").quick_retries(3);
    manifest.section("[config]", "out = \"out\"")
}

/// A host on a server of its own; what its environment says of proxies is not for loopback.
async fn stage(extra: &str) -> Result<Stage> {
    let direct = ("NO_PROXY".to_owned(), "127.0.0.1".to_owned());
    Stage::with(|options: HostOptions| {
        let mut options = options.extra(extra);
        options.environment.push(direct);
        options
    })
    .await
}

/// Waits until this component serves without any trouble.
async fn serves(stage: &Stage, component: &[u8]) -> Result<Value> {
    let wanted = digest(component);
    let serves = |entry: &Value| {
        entry["version"].as_str().is_some_and(|version| wanted.ends_with(version))
            && entry["problems"].as_array().is_some_and(Vec::is_empty)
    };
    stage.wait_status("the component serves", "ledger", serves).await
}

/// Waits until the consumer says that it is in this trouble while this component serves; none: while none does.
async fn in_trouble(stage: &Stage, says: &str, serving: Option<&[u8]>) -> Result<()> {
    let wanted = serving.map(digest);
    let is_so = |entry: &Value| {
        let version = entry["version"].as_str().map(|version| format!("sha256:{version}"));
        version == wanted && entry["problems"].to_string().contains(says)
    };
    stage.wait_status(&format!("it says {says:?}"), "ledger", is_so).await?;
    Ok(())
}

/// Handles message number `n` of a key, and is the same consumer as before.
async fn handles(stage: &mut Stage, n: u64) -> Result<()> {
    stage.ledger("a", n).await?;
    let events = stage.ledger_events(1).await?;
    assert_eq!((events[0].n, events[0].count), (n, n), "its state went on");
    Ok(())
}

#[tokio::test]
async fn an_image_serves_and_a_tag_that_moved_is_swapped_in_by_a_deployment() -> Result<()> {
    let registry = Registry::start().await?;
    let (one, two) = (component("one")?, component("two")?);
    let first = registry.push("acme/ledger", "1", &one)?;
    let mut stage = stage("").await?;
    let tag = format!("oci://{}/acme/ledger:1", registry.address());
    stage.host.manifest("ledger", &manifest(&tag))?;
    let checked = stage.host.run(&["check"])?;
    assert!(checked.status.success(), "{checked:?}");
    stage.host.start().await?;
    serves(&stage, &one).await?;
    handles(&mut stage, 1).await?;

    registry.push("acme/ledger", "1", &two)?;
    tokio::time::sleep(QUIET).await;
    serves(&stage, &one).await?;
    // The manifest is written again, as it was: that is a deployment.
    stage.host.manifest("ledger", &manifest(&tag))?;
    serves(&stage, &two).await?;
    handles(&mut stage, 2).await?;
    // Asked to deploy, the host looks at the tag again.
    let three = component("three")?;
    registry.push("acme/ledger", "1", &three)?;
    let deployed = stage.host.run(&["deploy", "ledger"])?;
    assert!(deployed.status.success(), "{deployed:?}");
    serves(&stage, &three).await?;

    // Back to the first one by its digest, whatever the tag is now.
    stage.host.manifest("ledger", &manifest(&format!("oci://{}/acme/ledger@{first}", registry.address())))?;
    serves(&stage, &one).await?;
    handles(&mut stage, 3).await
}

#[tokio::test]
async fn bytes_that_are_not_what_their_digest_says_never_serve() -> Result<()> {
    let registry = Registry::start().await?;
    let (one, two) = (component("one")?, component("two")?);
    registry.push("ledger", "1", &one)?;
    let pinned = registry.push("ledger", "2", &two)?;
    let mut stage = stage("").await?;
    stage.host.manifest("ledger", &manifest(&format!("oci://{}/ledger:1", registry.address())))?;
    stage.host.start().await?;
    serves(&stage, &one).await?;

    let nobodys = digest(b"nobody has pushed this");
    stage.host.manifest("ledger", &manifest(&format!("oci://{}/ledger@{nobodys}", registry.address())))?;
    in_trouble(&stage, "manifest unknown", Some(&one)).await?;
    handles(&mut stage, 1).await?;

    // A registry that gives out other bytes: first another layer, then another manifest.
    let mut other = two.clone();
    *other.last_mut().context("it is not empty")? ^= 1;
    let good = registry.overwrite(&digest(&two), &other)?;
    let source = format!("oci://{}/ledger@{pinned}", registry.address());
    stage.host.manifest("ledger", &manifest(&source))?;
    in_trouble(&stage, &digest(&other), Some(&one)).await?;
    registry.overwrite(&digest(&two), &good)?;
    let sound = registry.overwrite(&pinned, &image_manifest(&one)?)?;
    stage.host.manifest("ledger", &manifest(&source))?;
    in_trouble(&stage, "another manifest", Some(&one)).await?;
    handles(&mut stage, 2).await?;

    // Mended, it is fetched without anybody's help.
    registry.overwrite(&pinned, &sound)?;
    serves(&stage, &two).await?;
    handles(&mut stage, 3).await
}

#[tokio::test]
async fn a_host_starts_without_its_registry_with_what_it_has() -> Result<()> {
    let mut registry = Registry::start().await?;
    let (one, two) = (component("one")?, component("two")?);
    let pinned = registry.push("ledger", "1", &one)?;
    let mut stage = stage("").await?;
    let source = |pick: &str| format!("oci://{}/ledger{pick}", registry.address());
    let (by_tag, by_digest, never) = (source(":1"), source(&format!("@{pinned}")), source(":never-seen"));
    stage.host.manifest("ledger", &manifest(&by_tag))?;
    stage.host.start().await?;
    serves(&stage, &one).await?;
    handles(&mut stage, 1).await?;
    stage.host.manifest("ledger", &manifest(&by_digest))?;
    // It is the same component, so only what is kept shows that it was asked for.
    let notes = || {
        let entries = std::fs::read_dir(stage.host.path("data/sources"))?.filter_map(std::result::Result::ok);
        let is_note = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "json");
        let count = entries.filter(|entry| is_note(&entry.path())).count();
        Ok((count == 2).then_some(()))
    };
    wait::until("the image is known by its digest", SOON, || async { notes() }).await?;
    serves(&stage, &one).await?;
    stage.host.stop().await?;
    registry.kill()?;

    // A digest has nothing to ask for.
    stage.host.start().await?;
    serves(&stage, &one).await?;
    stage.host.stop().await?;
    // What a tag is now can't be known: that is told.
    stage.host.manifest("ledger", &manifest(&by_tag))?;
    stage.host.manifest("other", &manifest(&never))?;
    stage.consumer("here", "ledger", |manifest| manifest)?;
    stage.host.start().await?;
    in_trouble(&stage, "as it was fetched before", Some(&one)).await?;
    stage.wait_status("the one from a file serves", "here", |entry| entry["version"].is_string()).await?;
    let lacks = |entry: &Value| entry["problems"].to_string().contains("nothing of it was fetched before");
    stage.wait_status("what was never fetched is told", "other", lacks).await?;
    stage.host.remove_manifest("other")?;
    stage.host.remove_manifest("here")?;
    stage.ledger("a", 2).await?;
    let mut counts = Vec::new();
    while !counts.contains(&2) {
        let event = stage.event().await?;
        if event.id().is_some_and(|id| id.starts_with("ledger:")) {
            counts.push(event.json::<Value>()?["count"].as_u64().unwrap_or_default());
        }
    }

    registry.start_again().await?;
    serves(&stage, &one).await?;
    registry.push("ledger", "1", &two)?;
    stage.host.manifest("ledger", &manifest(&by_tag))?;
    serves(&stage, &two).await?;
    Ok(())
}

#[tokio::test]
async fn a_component_above_the_limit_is_not_fetched() -> Result<()> {
    let registry = Registry::start().await?;
    let large = component("large")?;
    assert!(large.len() > 65_536, "the guest has {} bytes", large.len());
    registry.push("ledger", "1", &large)?;
    let mut stage = stage("[limits]\ncomponent_bytes_max = 65536\n").await?;
    stage.host.manifest("ledger", &manifest(&format!("oci://{}/ledger:1", registry.address())))?;
    stage.host.start().await?;
    in_trouble(&stage, "limits.component_bytes_max of the host is 65536", None).await?;
    stage.client.put_object("plugins", "ledger", &large).await?;
    stage.host.manifest("ledger", &manifest("nats://plugins/ledger"))?;
    let says = format!("nats://plugins/ledger: it has {} bytes or more", large.len());
    in_trouble(&stage, &says, None).await?;
    Ok(())
}

#[tokio::test]
async fn a_registry_that_asks_for_a_login_gets_the_one_of_the_configuration() -> Result<()> {
    let registry = Registry::with_login().await?;
    let one = component("one")?;
    registry.push("ledger", "1", &one)?;
    let login =
        format!("[oci]\nregistry = \"{}\"\nuser = \"{USER}\"\npassword_file = \"password\"\n", registry.address());
    let mut stage = stage(&login).await?;
    stage.host.write("password", b"not this one\n")?;
    stage.host.manifest("ledger", &manifest(&format!("oci://{}/ledger:1", registry.address())))?;
    stage.host.start().await?;
    in_trouble(&stage, &format!("refuses access (as {USER}, of [oci])"), None).await?;
    // A secret is read when it is needed.
    stage.host.write("password", format!("{PASSWORD}\n").as_bytes())?;
    serves(&stage, &one).await?;
    assert!(!stage.host.log().contains(PASSWORD), "secrets are never shown");
    handles(&mut stage, 1).await
}

#[tokio::test]
async fn a_registry_with_tls_is_trusted_if_its_authority_is() -> Result<()> {
    let mut registry = Registry::start().await?;
    let one = component("one")?;
    registry.push("ledger", "1", &one)?;
    registry.kill()?;
    registry.start_again_with_tls().await?;
    let source = format!("oci://{}/ledger:1", registry.address());
    let mut stranger = stage("[oci]\ninsecure = []\n").await?;
    stranger.host.manifest("ledger", &manifest(&source))?;
    stranger.host.start().await?;
    in_trouble(&stranger, "certificate", None).await?;

    let trusted = format!("[oci]\ninsecure = []\nca_file = \"{}\"\n", authority().display());
    let mut stage = stage(&trusted).await?;
    stage.host.manifest("ledger", &manifest(&source))?;
    stage.host.start().await?;
    serves(&stage, &one).await?;
    handles(&mut stage, 1).await
}

#[tokio::test]
async fn an_object_of_the_broker_serves_and_is_followed_without_a_restart() -> Result<()> {
    let (one, two) = (component("one")?, component("two")?);
    let mut stage = stage("").await?;
    stage.host.manifest("ledger", &manifest("nats://plugins/acme/ledger.wasm"))?;
    stage.host.start().await?;
    in_trouble(&stage, "there is no object store plugins", None).await?;
    stage.client.put_object("plugins", "acme/ledger.wasm", &one).await?;
    serves(&stage, &one).await?;
    handles(&mut stage, 1).await?;

    stage.client.put_object("plugins", "acme/ledger.wasm", &two).await?;
    serves(&stage, &two).await?;
    handles(&mut stage, 2).await?;

    // What is no component is refused as it would be from a file.
    stage.client.put_object("plugins", "acme/ledger.wasm", b"\0asm\x01\0\0\0").await?;
    in_trouble(&stage, "a core WebAssembly module", Some(&two)).await?;
    stage.client.put_object("plugins", "acme/ledger.wasm", &two).await?;
    serves(&stage, &two).await?;
    handles(&mut stage, 3).await?;

    stage.client.delete_object("plugins", "acme/ledger.wasm").await?;
    in_trouble(&stage, "was deleted", Some(&two)).await?;
    handles(&mut stage, 4).await?;
    stage.host.stop().await?;
    stage.host.start().await?;
    in_trouble(&stage, "was deleted", Some(&two)).await?;
    handles(&mut stage, 5).await?;
    stage.client.put_object("plugins", "acme/ledger.wasm", &one).await?;
    serves(&stage, &one).await?;
    handles(&mut stage, 6).await
}

#[tokio::test]
async fn a_source_that_can_be_none_is_refused_with_the_three_that_can() -> Result<()> {
    let stage = Stage::new().await?;
    stage.host.manifest("ledger", &manifest("https://127.0.0.1/ledger.wasm"))?;
    let checked = stage.host.run(&["check"])?;
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{told}");
    for part in ["PC023", "\"https\"", "a path", "oci://", "nats://"] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    Ok(())
}
