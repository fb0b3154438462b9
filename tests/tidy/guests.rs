//! Every guest is there for a test.

use std::fs;

use pelton_tests::tools::{PluginSet, root};

use crate::tree::{assert_none, files};

#[test]
fn every_guest_is_named_in_a_test() {
    let tests: Vec<_> = files("rs")
        .into_iter()
        .filter(|file| file.path.starts_with("tests/") || file.path.starts_with("host/"))
        .collect();
    let mut complaints = Vec::new();
    for entry in fs::read_dir(PluginSet::Guests.directory()).expect("guests/") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.join("Cargo.toml").is_file() {
            continue;
        }
        let named = tests
            .iter()
            .any(|file| file.text.contains(&format!("\"{name}\"")) || file.text.contains(&format!("\"{name}.wasm\"")));
        if !named {
            complaints.push(format!("guests/{name}: no test uses it; write one under tests/e2e, or delete it"));
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_example_has_a_readme_and_a_test() {
    let tests: Vec<_> = files("rs").into_iter().filter(|file| file.path.starts_with("tests/")).collect();
    let mut complaints = Vec::new();
    for name in ["tickets", "retail"] {
        if !root().join("examples").join(name).join("README.md").is_file() {
            complaints.push(format!("examples/{name}: write a README.md: what it shows, how to run it"));
        }
        if !tests.iter().any(|file| file.text.contains(&format!("examples/{name}"))) {
            complaints.push(format!("examples/{name}: no test runs it; write one under tests/e2e"));
        }
    }
    assert_none(&complaints);
}
