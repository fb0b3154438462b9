//! `retail-feed`: publishes invoice lines from a CSV or from the generator, and says how many.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use retail_feed::{Options, generate, publish, read_csv};

/// Publishes invoice lines to retail.lines.CUSTOMER.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// NATS server
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    url: String,
    /// A CSV with the columns of the UCI "Online Retail" data set, not compressed; without it, rows are generated
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Rows: with --data the first so many of the file (default: all), else so many generated ones (default: 10,000)
    #[arg(long)]
    count: Option<usize>,
    /// What the generated rows depend on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of a hundred rows, so many are published twice
    #[arg(long, value_name = "PCT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    duplicates: u8,
    /// So many messages that can't be added up, among the rows
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    poison: u64,
    /// Rows a second; without it, as fast as they are acknowledged
    #[arg(long)]
    rate: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let rows = match &arguments.data {
        Some(path) => {
            let mut rows = read_csv(path).context("the data can't be used")?;
            rows.truncate(arguments.count.unwrap_or(usize::MAX));
            rows
        }
        None => generate(arguments.seed).take(arguments.count.unwrap_or(10_000)).collect(),
    };
    let options = Options { duplicates_percent: arguments.duplicates, poison: arguments.poison, rate: arguments.rate };
    let report = publish(&arguments.url, rows, &options, |_| {}).await?;
    println!(
        "published {} rows, {} duplicates, {} poison; {} of these the broker had already",
        report.rows, report.duplicates, report.poison, report.known_to_broker
    );
    Ok(())
}
