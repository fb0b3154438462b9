//! Compiled components, kept on the disk under the digest of their bytes, so that a start or a swap back compiles nothing.
//!
//! The only unsafe code of the host: native code is loaded as it lies there. What always holds: a file is loaded only if it has the digest that this host wrote into
//! it, over its contents and the version that it is for; it lies in a directory that only this user can enter; and it was made by an engine like this one. Anything
//! else is not loaded, and the component is compiled anew.
#![allow(unsafe_code, reason = "loading a compiled component is unsafe: its contents are trusted")]

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pelton_core::ids::Version;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// What the digest of a file begins with: the layout of the file.
const LAYOUT: &[u8] = b"pelton compiled component 1";
const DIGEST_BYTES: usize = 32;

/// The directory of what one engine has compiled.
pub(super) struct Precompiled(PathBuf);

impl Precompiled {
    /// Makes the directory for this engine below `root`, and removes those of other engines: an upgrade leaves nothing behind.
    ///
    /// # Errors
    /// If the directories can't be made, or can't be closed to others.
    pub(super) fn open(root: &Path, engine: &Engine) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let name = format!("{:016x}", hasher.finish());
        let directory = root.join(&name);
        for made in [root, &directory] {
            if !made.is_dir() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(made)?;
            }
            // Fails if it belongs to somebody else.
            std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o700))?;
        }
        for entry in std::fs::read_dir(root)?.flatten() {
            if entry.file_name() != name.as_str() && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What is left of it costs room and nothing else.
                _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self(directory))
    }

    fn file(&self, version: Version) -> PathBuf {
        self.0.join(format!("{version}.cwasm"))
    }

    /// The compiled component; none if there is none that is whole.
    pub(super) fn load(&self, engine: &Engine, version: Version) -> Option<Component> {
        let file = self.file(version);
        let bytes = std::fs::read(&file).ok()?;
        let (digest, artifact) = bytes.split_at_checked(DIGEST_BYTES)?;
        if digest != digest_of(version, artifact) {
            tracing::warn!(file = %file.display(), "a compiled component is damaged, compiling it anew");
            return None;
        }
        // SAFETY: the artifact is what `Component::serialize` gave this host for this version: the digest in front of it covers every byte and the version, nobody
        // but this user can write into the directory (see `open`), and the bytes that were checked are the bytes that are loaded. wasmtime itself refuses what
        // an engine of another version or other settings made.
        let loaded = unsafe { Component::deserialize(engine, artifact) };
        loaded
            .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "a compiled component is foreign, compiling it anew"))
            .ok()
    }

    /// Keeps a compiled component. If it can't be, it will be compiled again.
    pub(super) fn keep(&self, version: Version, component: &Component) {
        let file = self.file(version);
        let kept =
            component.serialize().map_err(io::Error::other).and_then(|artifact| write(&file, version, &artifact));
        if let Err(error) = kept {
            tracing::warn!(file = %file.display(), %error, "a compiled component can't be kept");
        }
    }

    /// Removes what was compiled of other versions than these.
    pub(super) fn keep_only(&self, versions: &BTreeSet<Version>) {
        let kept: BTreeSet<PathBuf> = versions.iter().map(|version| self.file(*version)).collect();
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if !kept.contains(&entry.path()) {
                // It costs room and nothing else.
                _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn digest_of(version: Version, artifact: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::new().chain_update(LAYOUT).chain_update(version.0).chain_update(artifact).finalize().into()
}

/// In one step. A power failure may leave it damaged, which its digest shows.
fn write(file: &Path, version: Version, artifact: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = std::fs::File::create(&beside)?;
    new.write_all(&digest_of(version, artifact))?;
    new.write_all(artifact)?;
    std::fs::rename(&beside, file)
}
