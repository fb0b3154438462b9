//! What ids of processed messages cost the store alone, with few of them and with many: a benchmark of the host's own (`host/benches/ids.rs`), run as a program.

use anyhow::Result;

use super::figures::Case;
use super::program;
use super::scale::Scale;
use crate::progress::say;

pub(crate) const BENCH: &str = "ids";

/// How many there are before anything is measured, and the case's name. The last are more than the default cache has filters for.
const COUNTS: [(u64, &str); 3] = [(1_000_000, "1000000"), (10_000_000, "10000000"), (50_000_000, "50000000")];

/// Runs it.
///
/// # Errors
/// It can't be built, or an id is not known that should be, or the other way round.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (ids, name) in COUNTS {
        let mut readings = Vec::new();
        for round in 1..=scale.runs {
            say(&format!("{BENCH}: {name}, run {round} of {}", scale.runs));
            readings.push(program::figures(BENCH, vec![scale.of(ids).to_string()]).await?);
        }
        let about =
            "the store alone: ids that are added by checkpoints and looked up, with so many in it; cache of 64 MiB";
        cases.push(Case::measured(BENCH, name, about, &readings));
    }
    Ok(cases)
}
