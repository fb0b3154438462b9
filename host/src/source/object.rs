//! A component that is an object of a JetStream object store.

use std::sync::Arc;

use pelton_core::ids::Version;

use super::error::SourceError;
use super::kept::{Arrived, Kept};
use crate::config::{ComponentSource, ObjectSource};
use crate::nats::Objects;

/// Which version the object is now, and its bytes unless they are kept already.
pub(super) async fn fetch(
    objects: &Objects,
    source: &ComponentSource,
    object: &ObjectSource,
    kept: &Arc<Kept>,
) -> Result<(Version, Option<Arrived>), SourceError> {
    let mut opened = objects.open(&object.bucket, &object.name).await?;
    let version = Version(opened.facts().sha256);
    if kept.holds(version).await? {
        return Ok((version, None));
    }
    let mut arriving = kept.receive(source).await?;
    arriving.announce(opened.facts().bytes)?;
    loop {
        let bytes = opened.read().await?;
        if bytes.is_empty() {
            return Ok((version, Some(arriving.finish(version).await?)));
        }
        arriving.take(bytes).await?;
    }
}
