//! What may not stand in the source.

use crate::tree::{assert_none, files, numbered};

/// Each with what to do instead. Written apart, so that this file does not find itself.
const FORBIDDEN: [(&str, &str, &str); 7] = [
    ("TO", "DO", "do it now, or open an issue and leave the code whole without it"),
    ("FIX", "ME", "repair it now, or open an issue and say in the code what holds today"),
    ("XX", "X", "say what is meant in a sentence"),
    ("todo", "!(", "write the code; a stub is not merged"),
    ("unimpl", "emented!(", "write the code; a stub is not merged"),
    ("#[ign", "ore", "repair the test or delete it: one that never runs shows nothing"),
    ("dbg", "!(", "use tracing"),
];

#[test]
fn no_stubs_and_no_leftovers() {
    let mut complaints = Vec::new();
    for file in files("rs").into_iter().chain(files("toml")).chain(files("wit")) {
        for (number, line) in numbered(&file.text) {
            for (first, second, instead) in FORBIDDEN {
                let word = format!("{first}{second}");
                if line.contains(&word) {
                    complaints.push(format!("{}:{number}: {word}: {instead}", file.path));
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn what_users_see_is_in_the_change_log() {
    let path = pelton_tests::tools::root().join("CHANGELOG.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text.contains("## "),
        "{}: write what a user can see of this version, under a heading of its own",
        path.display()
    );
}
