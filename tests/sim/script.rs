//! What the plug-ins of the simulation do with a message: it stands in the message's payload, so that it is part of its content and can be edited.

use bytes::Bytes;
use pelton_core::message::Failure;

use crate::chance::Chance;

/// A failure without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Retry,
    Trap,
    Timeout,
    Limit,
}

impl How {
    const ALL: [Self; 4] = [Self::Retry, Self::Trap, Self::Timeout, Self::Limit];

    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Retry => Failure::Retry { reason: "by script".into(), after_ms: None },
            Self::Trap => Failure::Trap { reason: "by script".into() },
            Self::Timeout => Failure::Timeout { limit_ms: 10 },
            Self::Limit => Failure::Limit { reason: "by script".into() },
        }
    }

    fn by_chance(chance: &mut Chance) -> Self {
        Self::ALL.get(chance.place(4)).copied().unwrap_or(Self::Retry)
    }
}

/// What comes of a message's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// It is handled.
    Good,
    /// It fails this often, and is handled then.
    Fails(How, u8),
    /// The plug-in will never have it.
    Reject,
    /// The first version of the plug-in fails with it, every time; the second handles it.
    Poison(How),
    /// It is not its turn before a later message of its key was applied.
    AfterLater,
}

/// A message's content: its script, and how many events it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) script: Script,
    pub(crate) events: u8,
}

impl Content {
    /// Most messages are good.
    pub(crate) fn by_chance(chance: &mut Chance, poisoned_key: bool) -> Self {
        let events = [0, 0, 1, 1, 1, 2, 3].get(chance.place(7)).copied().unwrap_or(0);
        let script = match chance.below(100) {
            _ if poisoned_key => Script::Poison(How::by_chance(chance)),
            0..=7 => Script::Fails(How::by_chance(chance), chance.between(1, 6) as u8),
            8..=9 => Script::Reject,
            10 => Script::Poison(How::by_chance(chance)),
            11..=13 => Script::AfterLater,
            _ => Script::Good,
        };
        Self { script, events }
    }

    pub(crate) fn encode(self) -> Bytes {
        let (kind, how, times) = match self.script {
            Script::Good => (0, How::Retry, 0),
            Script::Fails(how, times) => (1, how, times),
            Script::Reject => (2, How::Retry, 0),
            Script::Poison(how) => (3, how, 0),
            Script::AfterLater => (4, How::Retry, 0),
        };
        Bytes::copy_from_slice(&[kind, how as u8, times, self.events])
    }

    /// None: the payload is not what was published, nor an edit of it.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let [kind, how, times, events] = *payload else { return None };
        let how = *How::ALL.get(usize::from(how))?;
        let script = match kind {
            0 => Script::Good,
            1 => Script::Fails(how, times),
            2 => Script::Reject,
            3 => Script::Poison(how),
            4 => Script::AfterLater,
            _ => return None,
        };
        Some(Self { script, events })
    }
}
