//! What can go wrong, and what operators do meanwhile.

use crate::chance::Chance;

/// How the host's life ends when the disk stops in the middle of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The process is killed: the operating system keeps what was written.
    Crash,
    /// What was not synced is lost, in part, or torn.
    PowerLoss,
    /// The disk reports an error; the host has to end by itself.
    IoError,
}

/// One trouble, or one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trouble {
    /// The host dies now, whatever it is doing.
    Ends(End),
    /// It dies at so many operations of its disks from now.
    EndsAt(End, u64),
    /// There is no room on the disk for so many milliseconds.
    DiskFull(u64),
    /// It is asked to stop, and started again.
    Drain,
    /// A consumer is stopped and started again.
    StopStart,
    /// A consumer's policies change.
    Change,
    /// A consumer's subscription breaks.
    Lost,
    /// All connections break.
    ConnectionLost,
    /// The broker restarts from an older state, and gets the newer one back later.
    Backwards,
    /// A stream is deleted and made anew.
    Replaced,
    /// The wall clock jumps by so many milliseconds.
    ClockJump(i64),
    /// The second version of the plug-in is deployed.
    Swap,
    /// Nothing that a consumer depends on works, for so many milliseconds.
    Outage(u64),
    /// The output stream takes nothing, for so many milliseconds.
    OutputRefuses(u64),
    Checkpoint,
    Pause,
    Resume,
    Release,
    ReleaseAll,
    DropParked,
    EditParked,
    Replay,
    DropDeadLetter,
}

/// When, and to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) at_ms: u64,
    pub(crate) consumer: usize,
    pub(crate) stream: usize,
    pub(crate) trouble: Trouble,
}

impl Trouble {
    /// One of them.
    pub(crate) fn by_chance(chance: &mut Chance) -> Self {
        let end = match chance.below(5) {
            0 | 1 => End::Crash,
            2 | 3 => End::PowerLoss,
            _ => End::IoError,
        };
        match chance.below(44) {
            0..=2 => Self::Ends(if end == End::IoError { End::Crash } else { end }),
            3..=6 => Self::EndsAt(end, chance.between(1, 60)),
            7 => Self::DiskFull(chance.between(50, 1_000)),
            8..=9 => Self::Drain,
            10..=12 => Self::StopStart,
            13..=14 => Self::Change,
            15..=18 => Self::Lost,
            19..=20 => Self::ConnectionLost,
            21 => Self::Backwards,
            22 => Self::Replaced,
            23 => {
                let far_ms = chance.between(1, 20_000) as i64;
                Self::ClockJump(if chance.one_in(2) { far_ms } else { -far_ms })
            }
            24..=25 => Self::Swap,
            26..=27 => Self::Outage(chance.between(20, 600)),
            28..=29 => Self::OutputRefuses(chance.between(20, 800)),
            30..=31 => Self::Checkpoint,
            32 => Self::Pause,
            33 => Self::Resume,
            34..=35 => Self::Release,
            36 => Self::ReleaseAll,
            37..=38 => Self::DropParked,
            39..=40 => Self::EditParked,
            41..=42 => Self::Replay,
            _ => Self::DropDeadLetter,
        }
    }

    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ends(End::Crash) | Self::EndsAt(End::Crash, _) => "crash",
            Self::Ends(End::PowerLoss) | Self::EndsAt(End::PowerLoss, _) => "power-loss",
            Self::Ends(End::IoError) | Self::EndsAt(End::IoError, _) => "io-error",
            Self::DiskFull(_) => "disk-full",
            Self::Drain => "clean-restart",
            Self::StopStart => "consumer-restart",
            Self::Change => "policy-change",
            Self::Lost => "subscription-lost",
            Self::ConnectionLost => "connection-lost",
            Self::Backwards => "stream-backwards",
            Self::Replaced => "stream-replaced",
            Self::ClockJump(_) => "clock-jump",
            Self::Swap => "plug-in-swap",
            Self::Outage(_) => "outage",
            Self::OutputRefuses(_) => "output-refuses",
            Self::Checkpoint => "checkpoint",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Release => "release",
            Self::ReleaseAll => "release-all",
            Self::DropParked => "drop-parked",
            Self::EditParked => "edit-parked",
            Self::Replay => "replay",
            Self::DropDeadLetter => "drop-dead-letter",
        }
    }
}
