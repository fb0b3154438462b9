//! `BENCHMARKS.md`: a report as a text for readers, made from the figures and from nothing else.
//!
//! The text ends with the figures that it was made from. So a test can make it again and see whether somebody has changed it by hand.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::figures::Case;
use super::report::{Report, number, reached, verdict, wanted};

/// Before the figures.
const BEGIN: &str = "```json\n";
/// Behind them.
const END: &str = "\n```\n";

/// The text of a report.
///
/// # Errors
/// The report can't be written as JSON.
pub(crate) fn text(report: &Report) -> Result<String> {
    let mut text = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        text,
        "Made by `{}` from its own figures, which stand at the end; it is not edited by hand. What is measured, and how: `tests/src/bench/`.\n",
        report.command
    );
    if !report.full {
        text.push_str("**Too small a run for its figures to mean anything.**\n\n");
    }
    machine(&mut text, report);
    goals(&mut text, report);
    for bench in report.benches() {
        let cases: Vec<&Case> = report.cases.iter().filter(|case| case.bench == bench).collect();
        cases_of(&mut text, bench, &cases);
    }
    let json = serde_json::to_string(report).context("writing the figures")?;
    let _ = write!(text, "\n## All figures\n\n<details><summary>JSON</summary>\n\n{BEGIN}{json}{END}\n</details>\n");
    Ok(text)
}

/// The report that a text was made from.
///
/// # Errors
/// The text holds none.
pub(crate) fn figures(text: &str) -> Result<Report> {
    let (_, rest) = text.split_once(BEGIN).context("the text holds no figures")?;
    let (json, _) = rest.split_once(END).context("the figures in the text have no end")?;
    serde_json::from_str(json).context("the figures in the text can't be read")
}

fn machine(text: &mut String, report: &Report) {
    let machine = &report.machine;
    let gibibytes = machine.memory_bytes as f64 / f64::from(1 << 30);
    let rows = [
        ("date", date(report.began_at)),
        ("commit", machine.commit.clone()),
        ("processor", format!("{}, {} cores", machine.processor, machine.cores)),
        ("memory", format!("{gibibytes:.0} GiB")),
        ("kernel", machine.kernel.clone()),
        ("server", format!("{}, file storage, on the same machine", machine.nats_server)),
        ("compiler", machine.rustc.clone()),
        ("work", format!("{} messages, each case {} times", report.messages, report.runs)),
    ];
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {} |", cell(&value));
    }
}

fn goals(text: &mut String, report: &Report) {
    text.push_str("\n## Goals\n\n| goal | wanted | reached | |\n|---|---|---|---|\n");
    for goal in &report.goals {
        let (wanted, reached) = (wanted(goal.wanted), reached(goal.figure));
        let _ = writeln!(text, "| {} | {wanted} | {reached} | {} |", cell(&goal.name), verdict(goal));
    }
    let bounds: Vec<_> = report.goals.iter().filter_map(|goal| Some((&goal.name, goal.bound.as_ref()?))).collect();
    if !bounds.is_empty() {
        text.push_str("\nWhat bounds those that are missed, where the figures below show it; what was tried to reach them stands in `host/ARCHITECTURE.md`, *Performance*:\n\n");
    }
    for (name, bound) in bounds {
        let _ = writeln!(text, "- **{name}**: {bound}.");
    }
}

fn cases_of(text: &mut String, bench: &str, cases: &[&Case]) {
    let mut names: Vec<&String> = cases.iter().flat_map(|case| case.figures.keys()).collect();
    names.sort();
    names.dedup();
    let _ = writeln!(text, "\n## {bench}\n\nMedians, and in brackets the lowest and the highest run.\n");
    let header: String = names.iter().map(|name| format!(" {} |", name.replace('_', " "))).collect();
    let _ = writeln!(text, "| case |{header}\n|---|{}", "---|".repeat(names.len()));
    for case in cases {
        let _ = write!(text, "| {} |", cell(&case.name));
        for name in &names {
            let words = case.figures.get(*name).map(|figure| {
                let spread = format!(" ({} – {})", number(figure.min), number(figure.max));
                format!("{}{}", number(figure.median), if figure.runs.len() > 1 { spread } else { String::new() })
            });
            let _ = write!(text, " {} |", words.unwrap_or_default());
        }
        text.push('\n');
    }
    text.push('\n');
    for case in cases {
        let reason = case.not_available.as_ref().map(|reason| format!(" Not available: {reason}.")).unwrap_or_default();
        let _ = writeln!(text, "- **{}**: {}.{reason}", case.name, case.about);
    }
}

/// What stands in a cell may not end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A day in UTC, from seconds since 1970-01-01.
fn date(seconds: u64) -> String {
    let mut days = seconds / 86_400;
    let mut year = 1970;
    let is_leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{RATE, reading};
    use crate::bench::goals;
    use crate::tools::root;

    fn report() -> Report {
        let readings = [reading([(RATE, 1_000.5)]), reading([(RATE, 1_200.0)])];
        let cases = vec![
            Case::measured("work", "floor", "nothing else", &readings),
            Case::missing("work", "uniform-reuse", "with a | in it", "the host refuses it"),
        ];
        Report { goals: goals::judge(&cases, true), cases, command: "cargo xtask bench".into(), ..Report::default() }
    }

    #[test]
    fn a_text_holds_the_figures_that_it_was_made_from() {
        let text = text(&report()).unwrap();
        assert_eq!(figures(&text).unwrap(), report());
        assert!(text.contains("| floor | 1100 (1000 – 1200) |"), "{text}");
        assert!(text.contains("the host refuses it") && text.contains("| missed |"), "{text}");
    }

    #[test]
    fn what_bounds_a_missed_goal_stands_under_the_goals() {
        let mut report = report();
        assert!(!text(&report).unwrap().contains("What bounds"));
        let goal = report.goals.first_mut().unwrap();
        goal.bound = Some("the disk takes all".to_owned());
        let line = format!("- **{}**: the disk takes all.\n", goal.name);
        assert!(text(&report).unwrap().contains(&line), "{line}");
    }

    #[test]
    fn days_are_counted_as_calendars_do() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
    }

    #[test]
    fn benchmarks_md_says_what_its_figures_say() {
        // There is none before the first full run.
        let Ok(found) = std::fs::read_to_string(root().join("BENCHMARKS.md")) else { return };
        let made = text(&figures(&found).unwrap()).unwrap();
        assert!(found == made, "BENCHMARKS.md was changed by hand: make it with `cargo xtask bench --write`");
    }
}
