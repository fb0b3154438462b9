//! The report as pictures: bars of the throughput and of the latency of each case, as SVG.
//!
//! A bar is the median, a thin line across its end the spread of the runs. Latencies are drawn to a logarithmic scale, because they lie far apart.

use std::fmt::Write as _;

use super::figures::{Figure, P50_US, P99_US, P999_US, RATE};
use super::report::{Report, number};

const WIDTH: f64 = 900.0;
/// Where bars begin, and where they end at the latest.
const LEFT: f64 = 260.0;
const RIGHT: f64 = 800.0;
const ROW: f64 = 22.0;
const TOP: f64 = 48.0;

/// How a value becomes a length.
#[derive(Clone, Copy)]
enum Axis {
    Linear,
    Logarithmic,
}

impl Axis {
    /// The part of the full length that a value gets.
    fn part(self, value: f64, least: f64, most: f64) -> f64 {
        let part = match self {
            Self::Linear => value / most,
            Self::Logarithmic => {
                // A tenth of the least is the begin of the axis, so that the least has a bar too.
                let begin = (least / 10.0).max(f64::MIN_POSITIVE);
                (value / begin).ln() / (most / begin).ln()
            }
        };
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }
}

struct Bar {
    label: String,
    figure: Figure,
    colour: &'static str,
}

/// Throughput by case.
pub(crate) fn throughput(report: &Report) -> String {
    let bar = |bench: &str, name: &str, figure: &Figure| Bar {
        label: format!("{bench}: {name}"),
        figure: figure.clone(),
        colour: if bench == "work" { "#2b6cb0" } else { "#63a4d8" },
    };
    let bars: Vec<Bar> =
        report.cases.iter().filter_map(|case| Some(bar(&case.bench, &case.name, case.figures.get(RATE)?))).collect();
    picture("Throughput, messages a second", &bars, Axis::Linear)
}

/// Latency by case: median and tails.
pub(crate) fn latency(report: &Report) -> String {
    let mut bars = Vec::new();
    for case in &report.cases {
        for (name, word, colour) in
            [(P50_US, "p50", "#2f855a"), (P99_US, "p99", "#d69e2e"), (P999_US, "p99.9", "#c53030")]
        {
            let label = format!("{}: {} {word}", case.bench, case.name);
            bars.extend(case.figures.get(name).map(|figure| Bar { label, figure: figure.clone(), colour }));
        }
    }
    picture("From publish to event at 2,000 messages a second, µs (logarithmic)", &bars, Axis::Logarithmic)
}

fn picture(title: &str, bars: &[Bar], axis: Axis) -> String {
    let least = bars.iter().map(|bar| bar.figure.min).fold(f64::INFINITY, f64::min);
    let most = bars.iter().map(|bar| bar.figure.max).fold(0.0, f64::max);
    let height = TOP + ROW * bars.len().max(1) as f64 + 16.0;
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"16\">{}</text>",
        escaped(title)
    );
    for (place, bar) in bars.iter().enumerate() {
        let at = |value: f64| LEFT + (RIGHT - LEFT) * axis.part(value, least, most);
        let (top, middle) = (TOP + ROW * place as f64, TOP + ROW * (place as f64 + 0.5));
        let Figure { median, min, max, .. } = bar.figure;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            middle + 4.0,
            escaped(&bar.label),
            top + 3.0,
            at(median) - LEFT,
            ROW - 6.0,
            bar.colour,
            at(min),
            at(max),
            at(max) + 6.0,
            middle + 4.0,
            number(median)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{Case, reading};

    fn report() -> Report {
        let fast = Case::measured("work", "a<b", "", &[reading([(RATE, 100.0)]), reading([(RATE, 200.0)])]);
        let slow = Case::measured("work", "slow", "", &[reading([(RATE, 50.0)])]);
        let latency = Case::measured("latency", "fresh", "", &[reading([(P50_US, 500.0), (P99_US, 5_000.0)])]);
        Report { cases: vec![fast, slow, latency], ..Report::default() }
    }

    /// Widths of the bars in their order; the first rectangle is the background.
    fn widths(svg: &str) -> Vec<f64> {
        let rects = svg.lines().filter(|line| line.starts_with("<rect x="));
        rects.map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let widths = widths(&throughput(&report()));
        assert_eq!(widths.len(), 2);
        assert!((widths[0] / widths[1] - 3.0).abs() < 0.01, "{widths:?}");
    }

    #[test]
    fn latencies_have_a_bar_for_each_percentile_and_names_are_escaped() {
        let widths = widths(&latency(&report()));
        assert!(widths.len() == 2 && widths[0] < widths[1], "{widths:?}");
        assert!(throughput(&report()).contains("work: a&lt;b"));
        assert!(throughput(&Report::default()).ends_with("</svg>\n"));
    }
}
