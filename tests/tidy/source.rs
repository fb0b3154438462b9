//! How files and functions are cut.

use crate::tree::{assert_none, files, numbered};

/// Lines of a file, at most.
const FILE_LINES_MAX: usize = 800;

/// Lines of a function, at most, its signature and closing brace included.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn every_file_says_what_it_is_for() {
    let silent = files("rs").into_iter().filter(|file| !file.text.starts_with("//! "));
    let complaint =
        |path| format!("{path}: begin it with `//!`: what it is for, what it owns, what always holds in it");
    // Tests that were moved out of a file belong to that file's header.
    let complaints: Vec<String> =
        silent.filter(|file| !file.path.ends_with("/tests.rs")).map(|file| complaint(file.path)).collect();
    assert_none(&complaints);
}

#[test]
fn no_file_is_too_long() {
    let long = files("rs").into_iter().map(|file| (file.text.lines().count(), file.path));
    let long = long.filter(|(lines, _)| *lines > FILE_LINES_MAX);
    let complaint = |(lines, path)| {
        format!("{path}: {lines} lines; split it by topic, {FILE_LINES_MAX} is the most and 400 is good")
    };
    assert_none(&long.map(complaint).collect::<Vec<String>>());
}

#[test]
fn no_function_is_too_long() {
    let mut complaints = Vec::new();
    for file in files("rs") {
        for (line, name, length) in functions(&file.text) {
            if length > FUNCTION_LINES_MAX {
                complaints.push(format!(
                    "{}:{line}: fn {name} has {length} lines; take a part that has a name of its own out of it ({FUNCTION_LINES_MAX} is the most)",
                    file.path
                ));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn tests_are_named_for_behaviour() {
    let mut complaints = Vec::new();
    for file in files("rs") {
        let named = functions(&file.text).into_iter().filter(|(_, name, _)| name.starts_with("test_"));
        complaints.extend(named.map(|(line, name, _)| {
            format!("{}:{line}: name {name} for the behaviour that it shows, without `test_`", file.path)
        }));
    }
    assert_none(&complaints);
}

/// The functions of a formatted file: first line, name, length. The formatter puts a function's closing brace at the indentation of
/// its first line, and nothing else of the function there.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<(usize, &str)> = numbered(text).collect();
    let mut found = Vec::new();
    for (place, (number, line)) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indentation = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indentation));
        // A function without a body, in a trait, whose arguments take several lines.
        let declared = format!("{})", " ".repeat(indentation));
        let whole = line.ends_with(['}', ';']);
        let ends =
            |(_, line): &&(usize, &str)| *line == closing || (line.starts_with(&declared) && line.ends_with(';'));
        let body = if whole { None } else { lines[place..].iter().find(ends) };
        let last = body.map_or(*number, |(last, _)| *last);
        found.push((*number, name, last + 1 - number));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start().split(' ').skip_while(|word| {
        matches!(*word, "pub" | "pub(crate)" | "pub(super)" | "const" | "async" | "unsafe" | "extern" | "\"C\"")
    });
    let name = (words.next() == Some("fn")).then(|| words.next())??;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[test]
fn functions_are_measured() {
    let text = "impl A {\n    pub fn short(&self) -> u8 { 1 }\n\n    async fn long(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n    fn declared();\n}\n";
    let names: Vec<(usize, String, usize)> = functions(text);
    assert_eq!(names[1], (4, "long".to_owned(), 5));
    assert_eq!(names.len(), 3);
}
