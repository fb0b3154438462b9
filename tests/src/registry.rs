//! A registry of one's own: a child on a free loopback port, its images in a temporary directory. Images are pushed to it over plain HTTP, laid
//! out as `wkg oci push` lays them out.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::nats::free_port;
use crate::process::{Process, tail};
use crate::{tools, wait};

/// How long it may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The user that a registry with logins knows.
pub const USER: &str = "pelton";
/// Its password.
pub const PASSWORD: &str = "correct horse";
/// The two as `htpasswd -B` writes them; the registry reads no other form.
const HTPASSWD: &str = "pelton:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";
/// The two as a client sends them.
const AUTHORIZATION: &str = "Basic cGVsdG9uOmNvcnJlY3QgaG9yc2U=";

/// A registry. Dropped, it is killed and its images are deleted.
#[derive(Debug)]
pub struct Registry {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
}

/// A digest as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// Starts a registry that lets anyone in.
    ///
    /// # Errors
    /// There is no registry server, or it does not come up.
    pub async fn start() -> Result<Self> {
        Self::with("").await
    }

    /// Starts one that lets in [`USER`] only.
    ///
    /// # Errors
    /// There is no registry server, or it does not come up.
    pub async fn with_login() -> Result<Self> {
        Self::with("auth:\n  htpasswd:\n    realm: test\n    path: htpasswd\n").await
    }

    async fn with(extra: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("pelton-registry-")?;
        let port = free_port()?;
        let config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: images\nhttp:\n  addr: 127.0.0.1:{port}\n{extra}"
        );
        fs::write(directory.path().join("config.yml"), config)?;
        fs::write(directory.path().join("htpasswd"), HTPASSWD)?;
        let mut registry = Self { process: None, directory, port };
        registry.start_again().await?;
        Ok(registry)
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("registry.log")
    }

    /// Starts it again over the images that it has.
    ///
    /// # Errors
    /// There is no registry server, or it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(tools::registry_server()?);
        command.current_dir(self.directory.path()).args(["serve", "config.yml"]).env("OTEL_TRACES_EXPORTER", "none");
        self.process = Some(Process::spawn("docker-registry", &mut command, &self.log())?);
        let url = format!("http://{}/v2/", self.address());
        let waiting = wait::until("the registry answers", START_LIMIT, || {
            let answers = agent().get(&url).call().is_ok();
            async move { Ok(answers.then_some(())) }
        });
        waiting.await.with_context(|| format!("the registry's log:\n{}", tail(&self.log(), 40)))
    }

    /// Starts it again over the images that it has, with TLS: as 127.0.0.1, vouched for by [`authority`] alone.
    ///
    /// # Errors
    /// There is no registry server, or it does not come up.
    pub async fn start_again_with_tls(&mut self) -> Result<()> {
        let file = |name: &str| fixture(name).display().to_string();
        let lines = format!("  tls:\n    certificate: {}\n    key: {}\n", file("registry.pem"), file("registry.key"));
        let path = self.directory.path().join("config.yml");
        let config = fs::read_to_string(&path)?.replace("\nhttp:\n", &format!("\nhttp:\n{lines}"));
        fs::write(&path, config)?;
        self.start_again().await
    }

    /// Kills it; its images stay.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Pushes a component under a tag, and gives the digest of its manifest.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn push(&self, name: &str, tag: &str, component: &[u8]) -> Result<String> {
        self.blob(name, &config(component)?)?;
        self.blob(name, component)?;
        let manifest = manifest(component)?;
        let url = format!("http://{}/v2/{name}/manifests/{tag}", self.address());
        let request = agent().put(&url).header("Authorization", AUTHORIZATION);
        let answer = request.content_type("application/vnd.oci.image.manifest.v1+json").send(&manifest[..])?;
        ensure!(answer.status() == 201, "PUT {url}: {}", answer.status());
        Ok(digest(&manifest))
    }

    /// Overwrites what the registry has under a digest on its disk, and gives what was there.
    ///
    /// # Errors
    /// It has nothing under this digest.
    pub fn overwrite(&self, digest: &str, bytes: &[u8]) -> Result<Vec<u8>> {
        let hex = digest.trim_start_matches("sha256:");
        let start = hex.get(..2).context("a digest has more digits")?;
        let blob = format!("images/docker/registry/v2/blobs/sha256/{start}/{hex}/data");
        let path = self.directory.path().join(blob);
        let before = fs::read(&path).with_context(|| format!("the registry has no {digest}"))?;
        fs::write(&path, bytes)?;
        Ok(before)
    }

    fn blob(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let url = format!("http://{}/v2/{name}/blobs/uploads/", self.address());
        let begun = agent().post(&url).header("Authorization", AUTHORIZATION).send_empty()?;
        ensure!(begun.status() == 202, "POST {url}: {}", begun.status());
        let location = begun.headers().get("Location").context("the registry names no place to upload to")?;
        let url = format!("{}&digest={}", location.to_str()?, digest(bytes));
        let request = agent().put(&url).header("Authorization", AUTHORIZATION);
        let stored = request.content_type("application/octet-stream").send(bytes)?;
        ensure!(stored.status() == 201, "PUT {url}: {}", stored.status());
        Ok(())
    }
}

/// The certificate of the authority that vouches for a registry with TLS. Made for the tests; its key was thrown away.
#[must_use]
pub fn authority() -> PathBuf {
    fixture("ca.pem")
}

fn fixture(name: &str) -> PathBuf {
    tools::root().join("tests/fixtures/registry-tls").join(name)
}

/// What `wkg` puts beside a component.
fn config(component: &[u8]) -> Result<Vec<u8>> {
    let config = serde_json::json!({"architecture": "wasm", "os": "wasip2", "layerDigests": [digest(component)]});
    Ok(serde_json::to_vec(&config)?)
}

/// The manifest of a component.
///
/// # Errors
/// None that can be met.
pub fn manifest(component: &[u8]) -> Result<Vec<u8>> {
    let config = config(component)?;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(&config), "size": config.len(),
        },
        "layers": [{"mediaType": "application/wasm", "digest": digest(component), "size": component.len()}],
    });
    Ok(serde_json::to_vec(&manifest)?)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_LIMIT)).build();
    ureq::Agent::new_with_config(config)
}
