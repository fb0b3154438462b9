//! How large the store's files are on disk.

use std::path::Path;

use super::files::Paths;

/// The files of the store in this directory and their sizes, in bytes; 0 for one that is not there.
#[must_use]
pub fn file_sizes(directory: &Path) -> Vec<(&'static str, u64)> {
    let paths = Paths::new(directory);
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    vec![("log", size(&paths.log)), ("view", size(&paths.view))]
}
