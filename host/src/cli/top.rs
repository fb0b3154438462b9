//! `pelton top`: the status of a running host, again and again. Drawing is a function of what was seen, and tested as one.

use std::cmp::Reverse;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::args::Reach;
use super::commands::{Usage, reach};
use super::tables::duration;
use crate::admin::{ConsumerView, StatusView};

#[derive(Args, Debug)]
pub(super) struct Top {
    #[command(flatten)]
    reach: Reach,
    /// Time between two looks, in milliseconds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    Lag,
    Rate,
    Parked,
    Outbox,
}

const SORTS: [(char, Sort, &str); 5] = [
    ('n', Sort::Name, "name"),
    ('l', Sort::Lag, "lag"),
    ('r', Sort::Rate, "rate"),
    ('p', Sort::Parked, "parked"),
    ('o', Sort::Outbox, "outbox"),
];

/// What is shown.
struct Screen {
    status: Option<StatusView>,
    /// Messages applied per second since the look before, by consumer.
    rates: Vec<(String, f64)>,
    /// Why the last look failed.
    error: Option<String>,
    sort: Sort,
    /// Nothing is asked while the reader reads.
    frozen: bool,
}

impl Screen {
    fn new() -> Self {
        Self { status: None, rates: Vec::new(), error: None, sort: Sort::Lag, frozen: false }
    }

    /// Takes what was seen, `after` so long.
    fn see(&mut self, seen: Result<StatusView, String>, after: Duration) {
        match seen {
            Ok(status) => {
                let before = self.status.take();
                let applied = |name: &str| {
                    let consumers = &before.as_ref()?.consumers;
                    consumers.iter().find(|consumer| consumer.name == name).map(|consumer| consumer.applied)
                };
                let rate = |consumer: &ConsumerView| {
                    // A host that was started anew counts from 0.
                    let new = applied(&consumer.name).map_or(0, |before| consumer.applied.saturating_sub(before));
                    (consumer.name.clone(), new as f64 / after.as_secs_f64().max(0.001))
                };
                self.rates = status.consumers.iter().map(rate).collect();
                self.status = Some(status);
                self.error = None;
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn rate(&self, name: &str) -> f64 {
        self.rates.iter().find(|(of, _)| of == name).map_or(0.0, |(_, rate)| *rate)
    }

    fn sorted(&self) -> Vec<&ConsumerView> {
        let mut rows: Vec<&ConsumerView> = self.status.iter().flat_map(|status| &status.consumers).collect();
        // Hundredths, so that rates have an order.
        let by_rate = |consumer: &ConsumerView| (self.rate(&consumer.name) * 100.0) as u64;
        match self.sort {
            Sort::Name => {}
            Sort::Lag => rows.sort_by_key(|consumer| Reverse(lag(consumer))),
            Sort::Rate => rows.sort_by_key(|consumer| Reverse(by_rate(consumer))),
            Sort::Parked => rows.sort_by_key(|consumer| Reverse(consumer.parked_rows)),
            Sort::Outbox => rows.sort_by_key(|consumer| Reverse(consumer.outbox_pending)),
        }
        rows
    }
}

fn lag(consumer: &ConsumerView) -> u64 {
    consumer.pending.saturating_add(consumer.held as u64)
}

pub(super) fn run(Top { reach: wanted, interval_ms }: &Top) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(
            Usage("top draws on a terminal, and this is none: `pelton status --json` tells the same".into()).into()
        );
    }
    let client = reach(wanted)?;
    // Who is not there is told before the screen is taken.
    let first = client.status()?;
    let mut screen = Screen::new();
    screen.see(Ok(first), Duration::from_secs(1));
    let mut terminal = ratatui::try_init()?;
    let looked = watch(&mut terminal, &mut screen, Duration::from_millis(*interval_ms), || {
        client.status().map_err(|error| error.to_string())
    });
    // Whatever happened, the terminal is given back first.
    let restored = ratatui::try_restore();
    looked?;
    restored?;
    Ok(ExitCode::SUCCESS)
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    interval: Duration,
    look: impl Fn() -> Result<StatusView, String>,
) -> io::Result<()> {
    let mut looked = Instant::now();
    loop {
        terminal.draw(|frame| draw(frame, screen))?;
        let wait = interval.saturating_sub(looked.elapsed());
        if event::poll(wait)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && press(screen, key.code, key.modifiers)
            {
                return Ok(());
            }
        } else {
            let after = looked.elapsed();
            looked = Instant::now();
            if !screen.frozen {
                screen.see(look(), after);
            }
        }
    }
}

/// Does what a key says. True: it is over.
fn press(screen: &mut Screen, code: KeyCode, modifiers: KeyModifiers) -> bool {
    match code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char(' ') => screen.frozen = !screen.frozen,
        KeyCode::Char(letter) => {
            if let Some((_, sort, _)) = SORTS.iter().find(|(key, ..)| *key == letter) {
                screen.sort = *sort;
            }
        }
        _ => {}
    }
    false
}

fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(header(screen)), head);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let titles =
        ["CONSUMER", "PHASE", "VERSION", "LAG", "RUNNING", "RATE/S", "RETRYING", "PARKED", "DEAD", "OUTBOX", "OLDEST"];
    let widths = [20, 11, 9, 9, 8, 9, 9, 9, 7, 8, 8].map(Constraint::Length);
    let rows = screen.sorted().into_iter().map(|consumer| {
        let troubled = !consumer.holds.is_empty() || !consumer.problems.is_empty();
        let row = Row::new(cells(consumer, screen.rate(&consumer.name)).map(Cell::from));
        if troubled { row.style(bold) } else { row }
    });
    let titles = Row::new(titles.map(Cell::from)).style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(Table::new(rows, widths).header(titles), body);
    let keys = SORTS.iter().map(|(key, _, name)| format!("{key} {name}")).collect::<Vec<_>>().join("  ");
    frame.render_widget(Paragraph::new(format!("q quit  space freeze  sort: {keys}")), foot);
}

fn header(screen: &Screen) -> Vec<Line<'static>> {
    let Some(status) = &screen.status else { return vec![Line::from(screen.error.clone().unwrap_or_default())] };
    let ready = if status.ready.ok { "ready" } else { "NOT READY" };
    let sorted = SORTS.iter().find(|(_, sort, _)| *sort == screen.sort).map_or("", |(.., name)| name);
    let frozen = if screen.frozen { "  [frozen]" } else { "" };
    let outbox = &status.outbox;
    let oldest = outbox.oldest_age_ms.map_or_else(String::new, |age| format!(", the oldest for {}", duration(age)));
    let mut lines = vec![
        Line::from(format!(
            "pelton {}  up {}  {ready}  by {sorted}{frozen}",
            status.version,
            duration(status.uptime_ms)
        )),
        Line::from(format!(
            "nats: {}  outbox: {} in flight, {} queued, {} waiting{oldest}",
            status.nats, outbox.in_flight, outbox.queued, outbox.waiting
        )),
    ];
    let problem = screen.error.as_ref().or(status.ready.reasons.first());
    lines.extend(problem.map(|problem| Line::from(format!("! {problem}"))));
    lines
}

fn cells(consumer: &ConsumerView, rate: f64) -> [String; 11] {
    // A pause shows where the eye looks for what it does.
    let phase = match consumer.holds.first() {
        Some(hold) if hold.by == "operator" => "paused".to_owned(),
        Some(_) => "breaker".to_owned(),
        None => consumer.phase.clone(),
    };
    [
        consumer.name.clone(),
        phase,
        consumer.version.as_deref().map_or_else(|| "-".to_owned(), |version| version.chars().take(8).collect()),
        lag(consumer).to_string(),
        consumer.running.to_string(),
        format!("{rate:.1}"),
        consumer.waiting_retry.to_string(),
        consumer.parked_rows.to_string(),
        consumer.dead_letters.to_string(),
        consumer.outbox_pending.to_string(),
        consumer.outbox_age_ms.map_or_else(|| "-".to_owned(), duration),
    ]
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::snapshot::assert_snapshot;
    use super::*;

    fn consumer(name: &str, changes: &serde_json::Value) -> serde_json::Value {
        let mut consumer = json!({
            "name": name, "phase": "running", "version": "0123456789abcdef", "stream": "IN", "floor": 10, "delivered": 12, "pending": 0, "held": 0,
            "held_bytes": 0, "running": 0, "waiting_retry": 0, "outbox_pending": 0, "applied": 100, "duplicates": 0, "redelivered": 0, "retries": 0,
            "dead_letters": 0, "published": 0, "stale": 0,
            "failures": { "retry": 0, "reject": 0, "park": 0, "trap": 0, "timeout": 0, "limit": 0 },
            "parked_rows": 0, "parked_keys": 0, "keys_releasing": 0, "holds": [], "problems": [],
        });
        for (field, value) in changes.as_object().unwrap() {
            consumer[field] = value.clone();
        }
        consumer
    }

    fn status(applied: u64) -> StatusView {
        let hold = json!([{ "by": "operator", "since": "2026-01-01T00:00:00.000Z", "reason": "maintenance" }]);
        serde_json::from_value(json!({
            "version": "0.1.0", "uptime_ms": 3_700_000, "ready": { "ok": false, "reasons": ["consumer b is halted"] }, "nats": "connected to h:4222",
            "overlay_bytes": 0,
            "consumers": [
                consumer("a", &json!({ "applied": applied, "pending": 3, "held": 4, "running": 2 })),
                consumer("b", &json!({ "phase": "halted", "version": null, "parked_rows": 70, "outbox_pending": 5, "outbox_age_ms": 65_000 })),
                consumer("c", &json!({ "holds": hold, "pending": 900 })),
            ],
            "outbox": { "in_flight": 1, "queued": 2, "waiting": 3, "oldest_age_ms": 65_000, "last_refusal": null }, "files": [],
        }))
        .unwrap()
    }

    fn drawn(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(118, 9)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer();
        let line =
            |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..buffer.area.height).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_screen_is_as_it_was() {
        let mut screen = Screen::new();
        screen.see(Ok(status(100)), Duration::from_secs(1));
        screen.see(Ok(status(350)), Duration::from_secs(2));
        press(&mut screen, KeyCode::Char(' '), KeyModifiers::NONE);
        assert_snapshot("top.txt", &drawn(&screen));
    }

    #[test]
    fn rows_are_sorted_by_what_a_key_says_and_q_ends_it() {
        let mut screen = Screen::new();
        screen.see(Ok(status(100)), Duration::from_secs(1));
        screen.see(Ok(status(200)), Duration::from_secs(1));
        for (key, order) in [('l', "cab"), ('n', "abc"), ('r', "abc"), ('p', "bac"), ('o', "bac")] {
            assert!(!press(&mut screen, KeyCode::Char(key), KeyModifiers::NONE));
            let names: String = screen.sorted().iter().map(|consumer| consumer.name.as_str()).collect();
            assert_eq!(names, order, "{key}");
        }
        assert!(press(&mut screen, KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(press(&mut screen, KeyCode::Char('c'), KeyModifiers::CONTROL));
    }

    #[test]
    fn a_host_that_is_gone_leaves_what_was_seen_with_the_reason() {
        let mut screen = Screen::new();
        screen.see(Ok(status(100)), Duration::from_secs(1));
        screen.see(Err("no host answers".into()), Duration::from_secs(1));
        let text = drawn(&screen);
        assert!(text.contains("! no host answers") && text.contains("halted"), "{text}");
    }
}
