//! The walls between the modules: who may name what.

use crate::tree::{SourceFile, assert_none, files, numbered};

/// An outside system, the one directory of the host that knows it, and what the others use instead.
const WALLS: [(&str, &str, &str); 3] = [
    ("async_nats", "host/src/nats", "go through the types of `crate::nats`"),
    ("wasmtime", "host/src/wasm", "go through the types of `crate::wasm`"),
    ("redb", "host/src/store", "go through the types of `crate::store`"),
];

fn host() -> Vec<SourceFile> {
    files("rs").into_iter().filter(|file| file.path.starts_with("host/")).collect()
}

/// The code of a line, without what a comment says.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn one_module_knows_each_outside_system() {
    let mut complaints = Vec::new();
    for file in host() {
        for (system, owner, instead) in WALLS {
            let inside = file.path.starts_with(&format!("{owner}/")) || file.path == format!("{owner}.rs");
            for (number, line) in numbered(&file.text).filter(|_| !inside) {
                let code = code(line);
                if code.contains(&format!("{system}::")) || code.contains(&format!("use {system}")) {
                    complaints.push(format!("{}:{number}: {system} is known in {owner} only; {instead}", file.path));
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_three_shells_do_not_name_each_other() {
    let mut complaints = Vec::new();
    for file in host() {
        let Some((_, own, _)) = WALLS.iter().find(|(_, owner, _)| file.path.starts_with(owner)) else { continue };
        for (_, other, _) in WALLS.iter().filter(|(_, owner, _)| owner != own) {
            let module = other.trim_start_matches("host/src/");
            for (number, line) in
                numbered(&file.text).filter(|(_, line)| code(line).contains(&format!("crate::{module}::")))
            {
                complaints
                    .push(format!("{}:{number}: {line}: {own} and {other} meet only in `app` and `driver`", file.path));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn main_only_starts_things() {
    let main = host().into_iter().find(|file| file.path == "host/src/main.rs").expect("the host has a main");
    let lines = main.text.lines().count();
    assert!(lines < 130, "host/src/main.rs has {lines} lines: move what it decides into `app` or `cli`");
}

/// The files that may hold unsafe code, each with its reason at its head.
const UNSAFE: [&str; 2] = ["host/src/wasm/precompiled.rs", "sdk/src/allocator.rs"];

#[test]
fn unsafe_code_is_in_the_files_that_are_named() {
    let allowance = concat!("allow(unsafe", "_code");
    let keyword = concat!("unsafe", " ");
    let mut complaints = Vec::new();
    // What plug-ins do is the sandbox's business.
    let trusted = files("rs").into_iter().filter(|file| !file.path.starts_with("guests/"));
    for file in trusted.filter(|file| !UNSAFE.contains(&file.path.as_str())) {
        for (number, line) in numbered(&file.text).filter(|(_, line)| !line.contains('"')) {
            let code = code(line);
            if code.contains(allowance)
                || code.contains(&format!("{keyword}{{"))
                || code.contains(&format!("{keyword}fn"))
            {
                complaints.push(format!("{}:{number}: unsafe code is in {UNSAFE:?} only", file.path));
            }
        }
    }
    assert_none(&complaints);
}
