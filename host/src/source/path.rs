//! A component that is a file.

use std::path::Path;

use anyhow::{Context as _, bail};

/// The bytes of a component. Blocks on the disk.
pub(super) fn read(file: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let path = file.display();
    let advice = "build it, or correct `component` in the manifest";
    let metadata = std::fs::metadata(file).with_context(|| format!("component {path} can't be read: {advice}"))?;
    if !metadata.is_file() {
        bail!("component {path} is not a file: {advice}");
    }
    if metadata.len() > bytes_max as u64 {
        let length = metadata.len();
        bail!("component {path} has {length} bytes, more than limits.component_bytes_max = {bytes_max} of the host");
    }
    std::fs::read(file).with_context(|| format!("component {path} can't be read"))
}
