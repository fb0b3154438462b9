//! What can be typed about parked and dead messages.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::args::Ask;

/// Narrows down a list or an action.
#[derive(Args, Clone, Debug)]
pub(super) struct Narrow<C: ValueEnum + Send + Sync + 'static> {
    /// Only those parked, or given up, for this reason.
    #[arg(long, value_enum)]
    pub(super) reason: Option<C>,
    /// Only those parked, or given up, at least so long ago: 30s, 10m, 2h, 1d.
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    pub(super) older_than: Option<u64>,
}

/// Which messages are listed.
#[derive(Args, Clone, Debug)]
pub(super) struct Selection<C: ValueEnum + Send + Sync + 'static> {
    /// Only those of this consumer.
    pub(super) consumer: Option<String>,
    /// Only those of this ordering key.
    #[arg(long)]
    pub(super) key: Option<String>,
    #[command(flatten)]
    pub(super) narrow: Narrow<C>,
}

#[derive(Args, Debug)]
pub(super) struct List<C: ValueEnum + Send + Sync + 'static> {
    #[command(flatten)]
    pub(super) ask: Ask,
    #[command(flatten)]
    pub(super) selection: Selection<C>,
    /// At most so many, in order.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) limit: u32,
}

#[derive(Args, Debug)]
pub(super) struct Export<C: ValueEnum + Send + Sync + 'static> {
    #[command(flatten)]
    pub(super) reach: super::args::Reach,
    #[command(flatten)]
    pub(super) selection: Selection<C>,
    /// At most so many, in order; all by default.
    #[arg(long)]
    pub(super) limit: Option<usize>,
}

/// Why a message is parked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ParkedReason {
    /// Its attempts are used up; it holds its key.
    Exhausted,
    /// It waits for its next attempt, and more of its key came meanwhile than is kept in memory.
    Retrying,
    /// The plug-in said that it is not its turn.
    Asked,
    /// A version of its entity that comes before it is missing.
    Gap,
    /// It stands behind another one of its key.
    Behind,
    /// It was a dead letter and is to be handled again.
    Replayed,
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DeadReason {
    /// No plug-in could be given it.
    Unreadable,
    /// The plug-in rejected it.
    Rejected,
    /// Its attempts were used up.
    Exhausted,
    /// It was parked for longer than the consumer allows.
    ParkedTooLong,
    /// A version of its entity that comes before it never came.
    GapNeverFilled,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Parked {
    #[command(subcommand)]
    pub(super) action: Option<ParkedAction>,
    #[command(flatten)]
    pub(super) list: List<ParkedReason>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ParkedAction {
    /// List parked messages.
    List(List<ParkedReason>),
    /// Show one whole: the message, why it is parked, and its attempts.
    Show(Show),
    /// Bring messages back now, those of a key in order, before what comes of it.
    Release {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The message with this number; only for messages without a key: a key is released as a whole.
        #[arg(long, conflicts_with_all = ["key", "all"])]
        id: Option<u64>,
        #[command(flatten)]
        many: Many<ParkedReason>,
    },
    /// Replace the payload of one; its place, id and headers stay. It is released as before.
    Edit {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// Its number.
        id: u64,
        /// The file with the new payload; - is standard input.
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
    },
    /// Forget messages. What stands behind one that holds its key comes back then.
    Drop {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The message with this number.
        #[arg(conflicts_with_all = ["key", "all"])]
        id: Option<u64>,
        #[command(flatten)]
        many: Many<ParkedReason>,
        /// Also if it is more than one.
        #[arg(long)]
        yes: bool,
    },
    /// Write parked messages as JSON, one a line.
    Export(Export<ParkedReason>),
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    pub(super) action: Option<DeadLettersAction>,
    #[command(flatten)]
    pub(super) list: DeadList,
    /// Show this one whole: its sequence in the consumer's stream.
    #[arg(requires = "consumer")]
    pub(super) sequence: Option<u64>,
}

#[derive(Args, Debug)]
pub(super) struct DeadList {
    #[command(flatten)]
    pub(super) list: List<DeadReason>,
    /// The last ones given up, newest first.
    #[arg(long)]
    pub(super) newest: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersAction {
    /// List dead letters.
    List(DeadList),
    /// Show one whole: the message, why it was given up, and its attempts.
    Show(Show),
    /// Handle messages again, in the order of their sequences, before what comes of their keys.
    Replay {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The one with this sequence in its stream.
        #[arg(conflicts_with_all = ["key", "all"])]
        sequence: Option<u64>,
        #[command(flatten)]
        many: Many<DeadReason>,
        /// The file with a new payload for the one; - is standard input.
        #[arg(long, value_name = "FILE")]
        payload: Option<PathBuf>,
    },
    /// Forget messages.
    Drop {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The one with this sequence in its stream.
        #[arg(conflicts_with_all = ["key", "all"])]
        sequence: Option<u64>,
        #[command(flatten)]
        many: Many<DeadReason>,
        /// Also if it is more than one.
        #[arg(long)]
        yes: bool,
    },
    /// Write dead letters as JSON, one a line.
    Export(Export<DeadReason>),
}

#[derive(Args, Debug)]
pub(super) struct Show {
    #[command(flatten)]
    pub(super) ask: Ask,
    /// The consumer.
    pub(super) consumer: String,
    /// Its number: a parked message's id, a dead letter's sequence.
    pub(super) number: u64,
    /// Only the payload, its bytes as they are.
    #[arg(long, conflicts_with = "json")]
    pub(super) raw: bool,
}

/// More messages than one.
#[derive(Args, Clone, Debug)]
pub(super) struct Many<C: ValueEnum + Send + Sync + 'static> {
    /// Those of this ordering key.
    #[arg(long, conflicts_with = "all")]
    pub(super) key: Option<String>,
    /// All of the consumer.
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) narrow: Narrow<C>,
}

/// A time with its unit, as milliseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a whole number and a unit: ms, s, m, h or d".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number and a unit: ms, s, m, h or d".to_owned())?;
    number.checked_mul(unit_ms).ok_or_else(|| "too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let read = ["250ms", "30s", "10m", "2h", "1d"].map(|text| milliseconds(text).ok());
        assert_eq!(read, [250, 30_000, 600_000, 7_200_000, 86_400_000].map(Some));
        assert!(
            ["", "10", "m", "-1s", "1.5h", "1 s", "99999999999999999d"].iter().all(|text| milliseconds(text).is_err())
        );
    }
}
