//! The project's files as the rules see them.

use std::fs;
use std::path::Path;

use pelton_tests::tools::root;

/// A file of the project.
pub(crate) struct SourceFile {
    /// Its path from the workspace's root, with slashes.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// All files below the root with this extension; what Cargo and git keep for themselves is left out.
pub(crate) fn files(extension: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    collect(&root(), extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} file below {}", root().display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(directory: &Path, extension: &str, found: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(directory).expect("a directory of the project").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|known| known == extension) {
            let text = fs::read_to_string(&path).expect("source files are UTF-8");
            let below = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push(SourceFile { path: below, text });
        }
    }
}

/// Fails with all complaints at once.
pub(crate) fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} to repair:\n{}", complaints.len(), complaints.join("\n"));
}

/// The lines of a file with their numbers from 1, and whether each lies in a `#[cfg(test)]` module at the file's end.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}
