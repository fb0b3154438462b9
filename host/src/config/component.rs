//! Where a component comes from: a file, a registry, or an object store. The text of a manifest becomes a type that can't be wrong.

use std::fmt;
use std::path::{Path, PathBuf};

/// What `component` may be, for messages.
pub(super) const FORMS: &str =
    "write a path, oci://REGISTRY/NAME:TAG, oci://REGISTRY/NAME@sha256:DIGEST, or nats://BUCKET/NAME";

/// Longest name of a repository, in bytes: what registries take.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag, in bytes: what registries take.
const TAG_BYTES_MAX: usize = 128;
/// Longest name of a bucket, in bytes: a stream's name has 255, of which four are its own.
const BUCKET_BYTES_MAX: usize = 251;
/// Longest name of an object, in bytes: it becomes a part of a subject, a third longer.
const OBJECT_BYTES_MAX: usize = 512;

/// Where a component comes from. As text it is what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComponentSource {
    /// A file.
    Path(PathBuf),
    /// An image of a registry.
    Oci(OciSource),
    /// An object of a JetStream object store.
    Object(ObjectSource),
}

/// `oci://REGISTRY/REPOSITORY:TAG` or `oci://REGISTRY/REPOSITORY@sha256:DIGEST`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OciSource {
    /// Host, and port if it names one.
    pub registry: String,
    /// The name within the registry.
    pub repository: String,
    /// Which of its manifests.
    pub pick: OciPick,
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OciPick {
    /// The one that has this tag now.
    Tag(String),
    /// The one with this digest, `sha256:` and 64 digits: always the same.
    Digest(String),
}

/// `nats://BUCKET/NAME`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectSource {
    /// The object store's bucket.
    pub bucket: String,
    /// The object's name; it may have slashes.
    pub name: String,
}

/// Why a text is no source of a component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// It begins with a scheme that is none of ours.
    #[error("there is no source of components with the scheme \"{0}\"")]
    UnknownScheme(String),
    /// The registry is missing or is no host.
    #[error("\"{0}\" is not a registry: write its host, and its port if that is not the usual one")]
    Registry(String),
    /// The repository is missing or has characters that no registry takes.
    #[error(
        "\"{0}\" is not a name in a registry: a-z and 0-9, with single . or _ or - between them, in parts with / between"
    )]
    Repository(String),
    /// Neither tag nor digest.
    #[error("it has neither a tag nor a digest, and none is assumed")]
    NoPick,
    /// Not a tag.
    #[error("\"{0}\" is not a tag: up to {TAG_BYTES_MAX} of a-z, A-Z, 0-9, _, . and -, not beginning with . or -")]
    Tag(String),
    /// Not a digest.
    #[error("\"{0}\" is not a digest: \"sha256:\" and 64 of 0-9 and a-f")]
    Digest(String),
    /// The bucket is missing or has characters that JetStream does not take.
    #[error(
        "\"{0}\" is not a bucket of an object store: up to {BUCKET_BYTES_MAX} of a-z, A-Z, 0-9, _ and -; the server is the one of [nats]"
    )]
    Bucket(String),
    /// The object's name is missing, too long, or has control characters.
    #[error("\"{0}\" is not an object's name: up to {OBJECT_BYTES_MAX} bytes without control characters")]
    Object(String),
}

impl ComponentSource {
    /// Parses what a manifest says; a path without a scheme is relative to the directory of `manifest`.
    pub(super) fn parse(text: &str, manifest: &Path) -> Result<Self, InvalidSource> {
        match text.split_once("://") {
            None => Ok(Self::Path(super::host_read::beside(manifest, text))),
            Some(("oci", rest)) => OciSource::parse(rest).map(Self::Oci),
            Some(("nats", rest)) => ObjectSource::parse(rest).map(Self::Object),
            Some((scheme, _)) => Err(InvalidSource::UnknownScheme(scheme.into())),
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        if let Self::Path(path) = self { Some(path) } else { None }
    }

    /// Whether what it names can become something else without a change of the manifest, and nobody tells: an image's tag.
    #[must_use]
    pub fn is_tag(&self) -> bool {
        matches!(self, Self::Oci(OciSource { pick: OciPick::Tag(_), .. }))
    }
}

impl OciSource {
    fn parse(text: &str) -> Result<Self, InvalidSource> {
        let (registry, rest) = text.split_once('/').unwrap_or((text, ""));
        if !is_registry(registry) {
            return Err(InvalidSource::Registry(registry.into()));
        }
        let (name, digest) = rest.split_once('@').map_or((rest, None), |(name, digest)| (name, Some(digest)));
        let (repository, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
        if !is_repository(repository) {
            return Err(InvalidSource::Repository(repository.into()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(InvalidSource::Tag(tag.into()));
        }
        let pick = match (tag, digest) {
            // With both, the tag is a note for people.
            (_, Some(digest)) if is_digest(digest) => OciPick::Digest(digest.into()),
            (_, Some(digest)) => return Err(InvalidSource::Digest(digest.into())),
            (Some(tag), None) => OciPick::Tag(tag.into()),
            (None, None) => return Err(InvalidSource::NoPick),
        };
        Ok(Self { registry: registry.into(), repository: repository.into(), pick })
    }
}

impl ObjectSource {
    fn parse(text: &str) -> Result<Self, InvalidSource> {
        let (bucket, name) = text.split_once('/').unwrap_or((text, ""));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if bucket.is_empty() || bucket.len() > BUCKET_BYTES_MAX || !bucket.bytes().all(allowed) {
            return Err(InvalidSource::Bucket(bucket.into()));
        }
        if name.is_empty() || name.len() > OBJECT_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(InvalidSource::Object(name.into()));
        }
        Ok(Self { bucket: bucket.into(), name: name.into() })
    }
}

/// Whether it is a host with or without a port: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (text.get(..colon).unwrap_or_default(), text.get(colon + 1..)),
        _ => (text, None),
    };
    let name = |host: &str| {
        let label =
            |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        host.split('.').all(label)
    };
    let address = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    (name(host) || address(host)) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = |byte: Option<u8>| byte.is_some_and(alphanumeric);
        ends(part.bytes().next())
            && ends(part.bytes().next_back())
            && part.bytes().all(|byte| alphanumeric(byte) || b"._-".contains(&byte))
            && !part.contains("..")
    };
    text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
}

impl fmt::Display for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Oci(OciSource { registry, repository, pick: OciPick::Tag(tag) }) => {
                write!(f, "oci://{registry}/{repository}:{tag}")
            }
            Self::Oci(OciSource { registry, repository, pick: OciPick::Digest(digest) }) => {
                write!(f, "oci://{registry}/{repository}@{digest}")
            }
            Self::Object(ObjectSource { bucket, name }) => write!(f, "nats://{bucket}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ComponentSource, InvalidSource> {
        ComponentSource::parse(text, Path::new("consumers/x.toml"))
    }

    #[test]
    fn the_three_sources_are_told_apart_and_shown_as_they_were_written() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(parse("../x.wasm"), Ok(ComponentSource::Path("consumers/../x.wasm".into())));
        assert_eq!(parse("/abs/x.wasm"), Ok(ComponentSource::Path("/abs/x.wasm".into())));
        for text in [
            "oci://localhost:5000/orders:1.2".to_owned(),
            "oci://[::1]:5000/a:B".to_owned(),
            "oci://ghcr.io/acme/plug-ins/orders__eu:v1.2_rc.3".to_owned(),
            format!("oci://127.0.0.1/acme/orders@{digest}"),
            "nats://plugins/orders".to_owned(),
            "nats://plug_ins-1/team a/orders.wasm".to_owned(),
        ] {
            assert_eq!(parse(&text).map(|source| source.to_string()), Ok(text));
        }
        let both = parse(&format!("oci://ghcr.io/orders:1.2@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("oci://ghcr.io/orders@{digest}"), "the digest binds");
        assert!(!both.is_tag() && parse("oci://ghcr.io/orders:1").unwrap().is_tag());
    }

    #[test]
    fn what_can_be_no_source_is_refused_for_what_is_wrong_with_it() {
        use InvalidSource::*;
        let short = "sha256:abc";
        let upper = format!("sha256:{}", "A".repeat(64));
        let long = "a".repeat(129);
        for (text, why) in [
            ("ftp://host/x.wasm", UnknownScheme("ftp".into())),
            ("file:///x.wasm", UnknownScheme("file".into())),
            ("OCI://host/x:1", UnknownScheme("OCI".into())),
            ("oci://", Registry(String::new())),
            ("oci://ho st/x:1", Registry("ho st".into())),
            ("oci://host:0/x:1", Registry("host:0".into())),
            ("oci://user:secret@host/x:1", Registry("user:secret@host".into())),
            ("oci://a..b/x:1", Registry("a..b".into())),
            ("oci://host/", Repository(String::new())),
            ("oci://host:5000", Repository(String::new())),
            ("oci://host/Orders:1", Repository("Orders".into())),
            ("oci://host/a//b:1", Repository("a//b".into())),
            ("oci://host/../b:1", Repository("../b".into())),
            ("oci://host/orders", NoPick),
            ("oci://host/orders:", Tag(String::new())),
            ("oci://host/orders:.x", Tag(".x".into())),
            (&format!("oci://host/orders:{long}"), Tag(long.clone())),
            (&format!("oci://host/orders@{short}"), Digest(short.into())),
            (&format!("oci://host/orders@{upper}"), Digest(upper.clone())),
            (&format!("oci://host/orders@md5:{}", "a".repeat(64)), Digest(format!("md5:{}", "a".repeat(64)))),
            ("nats://127.0.0.1:4222/orders", Bucket("127.0.0.1:4222".into())),
            ("nats://", Bucket(String::new())),
            ("nats://plugins", Object(String::new())),
            ("nats://plugins/", Object(String::new())),
            ("nats://plugins/a\nb", Object("a\nb".into())),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
