//! Texts that are compared with a file in `tests/snapshots`: what people see is changed on purpose, or not at all.
//!
//! `PELTON_UPDATE_SNAPSHOTS=1` with the test's command line writes the files anew; the difference is then looked at like any other change.

use std::path::Path;

mod shown;

/// Compares a text with the snapshot of this name.
pub(super) fn assert_snapshot(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots").join(name);
    let text = format!("{}\n", text.trim_end());
    if std::env::var_os("PELTON_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = known.lines().zip(text.lines()).position(|(known, now)| known != now);
    let line = differs.unwrap_or_else(|| known.lines().count().min(text.lines().count()));
    assert!(
        known == text,
        "tests/snapshots/{name} is not what is shown now, from line {}:\n- {}\n+ {}\nif that is meant, run the test with PELTON_UPDATE_SNAPSHOTS=1",
        line + 1,
        known.lines().nth(line).unwrap_or_default(),
        text.lines().nth(line).unwrap_or_default(),
    );
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::args::Cli;
    use super::*;

    fn help(command: &mut clap::Command, path: &str, text: &mut String) {
        let rendered = command.clone().bin_name(path).term_width(100).render_long_help();
        text.push_str(&format!("━━ {path}\n{rendered}\n"));
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            let sub = command.find_subcommand_mut(name).unwrap();
            help(sub, &format!("{path} {name}"), text);
        }
    }

    #[test]
    fn the_help_of_every_command_is_as_it_was() {
        let mut text = String::new();
        help(&mut Cli::command(), "pelton", &mut text);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_snapshot("help.txt", &lines.join("\n"));
    }

    /// What clap itself looks at in debug builds only: two arguments of one name are taken for one.
    fn assert_unique(command: &clap::Command, path: &str) {
        let mut seen = std::collections::BTreeSet::new();
        for argument in command.get_arguments() {
            assert!(seen.insert(argument.get_id().as_str()), "{path}: two arguments are called {}", argument.get_id());
        }
        command.get_subcommands().for_each(|sub| assert_unique(sub, &format!("{path} {}", sub.get_name())));
    }

    #[test]
    fn every_argument_of_a_command_has_a_name_of_its_own() {
        assert_unique(&Cli::command(), "pelton");
    }

    #[test]
    fn completions_know_every_command() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "pelton", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{}", command.get_name());
        }
    }
}
