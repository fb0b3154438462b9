//! A component that is an image of an OCI registry, as `wkg oci push` and `oras push` make it: a manifest with one layer that is the component.
//!
//! The digest of a reference is that of the manifest, and the manifest has the digest of the layer; both are checked here, whatever the registry and
//! the client say. Nothing is taken from another place than the registry itself, and a layer that is kept already is not fetched again.

use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::StreamExt as _;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError};
use oci_client::manifest::{IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, WASM_LAYER_MEDIA_TYPE};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use pelton_core::ids::Version;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::error::SourceError;
use super::kept::{Arrived, Kept};
use super::login::{self, Login, LoginError};
use crate::config::{ComponentSource, OciConfig, OciPick, OciSource};

/// What the layer of a component is called today; [`WASM_LAYER_MEDIA_TYPE`] is what it was called before.
const COMPONENT_MEDIA_TYPE: &str = "application/wasm";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most characters of a registry's answer that are shown.
const ANSWER_SHOWN_MAX: usize = 300;

/// Why a registry does not give a component.
#[derive(Debug, Error)]
pub enum OciError {
    /// The login can't be used.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The certificates of `ca_file` can't be used.
    #[error("the certificates of oci.ca_file can't be read: {0}")]
    Certificates(std::io::Error),
    /// Nobody answers as a registry does.
    #[error("the registry can't be asked: {0}")]
    Unreachable(String),
    /// It wants to know who asks, or that one may not have it.
    #[error(
        "the registry refuses access ({who}): check the login in [oci] of the host, PELTON_OCI_USERNAME and PELTON_OCI_PASSWORD, or docker's file"
    )]
    Refused {
        /// As whom it was asked.
        who: String,
    },
    /// It has no such manifest or layer, or it is in trouble.
    #[error("the registry says: {0}")]
    Answer(String),
    /// The manifest is not the one that the reference binds to.
    #[error("the registry gives another manifest than the reference binds to, {came}: it is not used")]
    OtherManifest {
        /// Its digest.
        came: String,
    },
    /// The manifest is not one of a component.
    #[error("it is not an image of a component: {0}")]
    NoComponent(String),
}

/// What is read of a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
    /// Of an index, which names a manifest for each platform.
    #[serde(default)]
    manifests: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// How registries are asked.
pub(super) struct Registries {
    config: OciConfig,
}

impl Registries {
    pub(super) fn new(config: OciConfig) -> Self {
        Self { config }
    }

    /// Which version the image is now, and its bytes unless they are kept already. What a digest binds to and is kept is not asked for.
    pub(super) async fn fetch(
        &self,
        source: &ComponentSource,
        image: &OciSource,
        kept: &Arc<Kept>,
    ) -> Result<(Version, Option<Arrived>), SourceError> {
        if matches!(image.pick, OciPick::Digest(_))
            && let Some(version) = kept.version_of(source).await?
        {
            return Ok((version, None));
        }
        let login = login::find(&image.registry, &self.config).await.map_err(OciError::from)?;
        let client = self.client(&image.registry)?;
        let reference = reference(image);
        let (version, layer) = find_layer(&client, &reference, image, &login).await?;
        if kept.holds(version).await? {
            return Ok((version, None));
        }
        let mut arriving = kept.receive(source).await?;
        arriving.announce(layer.size)?;
        let pulled = client.pull_blob_stream(&reference, layer.digest.as_str()).await;
        let mut stream = pulled.map_err(|error| told(error, &login))?.stream;
        while let Some(bytes) = stream.next().await {
            match bytes {
                Ok(bytes) => arriving.take(&bytes).await?,
                // The client has counted along, and the stream is at its end: what came is judged below.
                Err(error) if error.get_ref().is_some_and(|cause| cause.is::<DigestError>()) => break,
                Err(error) => return Err(OciError::Unreachable(chain(&error)).into()),
            }
        }
        Ok((version, Some(arriving.finish(version).await?)))
    }

    /// A new one for each time, so that a login that was changed is used, and a token never outlives it.
    fn client(&self, registry: &str) -> Result<Client, OciError> {
        install_crypto();
        let mut extra_root_certificates = Vec::new();
        if let Some(file) = &self.config.ca_file {
            let data = std::fs::read(file).map_err(OciError::Certificates)?;
            extra_root_certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
        }
        let config = ClientConfig {
            protocol: if is_insecure(registry, &self.config.insecure) {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            extra_root_certificates,
            platform_resolver: None,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(Duration::from_millis(self.config.fetch_timeout_ms)),
            user_agent: concat!("pelton/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| OciError::Unreachable(chain(&error)))
    }
}

/// Whether the registry, or its host with all ports, is among these.
fn is_insecure(registry: &str, insecure: &[String]) -> bool {
    let port = |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    insecure.iter().any(|entry| registry.strip_prefix(entry.as_str()).is_some_and(|rest| rest.is_empty() || port(rest)))
}

/// The TLS of the client is built without a provider of its own. Another one that was installed first is as good.
fn install_crypto() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
}

fn reference(image: &OciSource) -> Reference {
    let (registry, repository) = (image.registry.clone(), image.repository.clone());
    match &image.pick {
        OciPick::Tag(tag) => Reference::with_tag(registry, repository, tag.clone()),
        OciPick::Digest(digest) => Reference::with_digest(registry, repository, digest.clone()),
    }
}

async fn find_layer(
    client: &Client,
    reference: &Reference,
    image: &OciSource,
    login: &Login,
) -> Result<(Version, Layer), OciError> {
    let auth = match &login.user {
        Some((user, password)) => RegistryAuth::Basic(user.clone(), password.clone()),
        None => RegistryAuth::Anonymous,
    };
    let accepted = [OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];
    let pulled = client.pull_manifest_raw(reference, &auth, &accepted).await;
    let (bytes, _) = pulled.map_err(|error| told(error, login))?;
    let came = Version(Sha256::digest(&bytes).into());
    if let OciPick::Digest(digest) = &image.pick
        && digest.strip_prefix("sha256:") != Some(came.to_string().as_str())
    {
        return Err(OciError::OtherManifest { came: format!("sha256:{came}") });
    }
    component_layer(&bytes)
}

fn component_layer(manifest: &[u8]) -> Result<(Version, Layer), OciError> {
    let no_component = |why: String| Err(OciError::NoComponent(why));
    let manifest: Manifest = match serde_json::from_slice(manifest) {
        Ok(manifest) => manifest,
        Err(error) => return no_component(format!("its manifest can't be read: {error}")),
    };
    if !manifest.manifests.is_empty() {
        return no_component("it is an index of images: name one of them by its digest".into());
    }
    let (components, others): (Vec<_>, Vec<_>) = manifest
        .layers
        .into_iter()
        .partition(|layer| [COMPONENT_MEDIA_TYPE, WASM_LAYER_MEDIA_TYPE].contains(&layer.media_type.as_str()));
    let count = components.len();
    let Ok([layer]) = <[Layer; 1]>::try_from(components) else {
        let others: Vec<_> = others.into_iter().map(|layer| layer.media_type).collect();
        return no_component(format!(
            "it has {count} layers of the type {COMPONENT_MEDIA_TYPE} instead of one; others: {}",
            if others.is_empty() { "none".into() } else { others.join(", ") }
        ));
    };
    match layer.digest.strip_prefix("sha256:").and_then(version) {
        Some(version) => Ok((version, layer)),
        None => no_component(format!("its layer has the digest {:?}, and only sha256 is taken", layer.digest)),
    }
}

/// A digest in hex.
fn version(hex: &str) -> Option<Version> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(Version(bytes))
}

/// The client's error in our words.
fn told(error: OciDistributionError, login: &Login) -> OciError {
    let refused = || OciError::Refused { who: login.to_string() };
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => refused(),
        OciDistributionError::ServerError { code: 401 | 403, .. } => refused(),
        OciDistributionError::ServerError { code, message, .. } => {
            let shown: String = message.chars().take(ANSWER_SHOWN_MAX).collect();
            OciError::Answer(format!("HTTP status {code} {}", shown.trim()).trim_end().to_owned())
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let text: Vec<String> =
                envelope.errors.iter().map(|error| format!("{:?}: {}", error.code, error.message)).collect();
            OciError::Answer(text.join("; ").chars().take(ANSWER_SHOWN_MAX).collect())
        }
        OciDistributionError::DigestError(DigestError::VerificationError { actual, .. }) => {
            OciError::OtherManifest { came: actual }
        }
        error => OciError::Unreachable(chain(&error)),
    }
}

/// An error with everything behind it: the client's own text seldom says what it was.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn layer(media_type: &str, digest: &str) -> String {
        format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{digest}\",\"size\":7}}")
    }

    fn manifest(layers: &[String]) -> Result<(Version, Layer), OciError> {
        component_layer(format!("{{\"schemaVersion\":2,\"layers\":[{}]}}", layers.join(",")).as_bytes())
    }

    #[test]
    fn only_the_registries_that_are_named_are_asked_without_tls() {
        let insecure = ["localhost", "[::1]", "reg.example:5000"].map(String::from);
        for registry in ["localhost", "localhost:5000", "[::1]:80", "reg.example:5000"] {
            assert!(is_insecure(registry, &insecure), "{registry}");
        }
        for registry in ["localhost.example", "reg.example", "reg.example:50001", "[::1]x", "127.0.0.1"] {
            assert!(!is_insecure(registry, &insecure), "{registry}");
        }
    }

    #[test]
    fn an_image_of_a_component_has_one_such_layer() {
        for media_type in [COMPONENT_MEDIA_TYPE, WASM_LAYER_MEDIA_TYPE] {
            let (version, found) = manifest(&[layer("text/plain", "x"), layer(media_type, DIGEST)]).unwrap();
            assert_eq!((format!("sha256:{version}").as_str(), found.size), (DIGEST, 7));
        }
        let wasm = layer(COMPONENT_MEDIA_TYPE, DIGEST);
        for (layers, why) in [
            (vec![], "0 layers"),
            (vec![layer("application/vnd.oci.image.layer.v1.tar", DIGEST)], "image.layer.v1.tar"),
            (vec![wasm.clone(), wasm], "2 layers"),
            (vec![layer(COMPONENT_MEDIA_TYPE, "sha512:00")], "only sha256"),
            (vec![layer(COMPONENT_MEDIA_TYPE, "sha256:00")], "only sha256"),
        ] {
            let error = manifest(&layers).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let index = component_layer(b"{\"manifests\":[{}]}").map(|_| ()).unwrap_err().to_string();
        assert!(index.contains("index"), "{index}");
        assert!(component_layer(b"<html>").is_err());
    }
}
