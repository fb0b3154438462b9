//! A run in one line: its seed, and what of its plan is kept. Written when a run fails, read from `kept.txt` and by `--case`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Which run, and which parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    /// Messages of all streams together; none: as planned.
    pub(crate) messages: Option<u64>,
    /// The places of the consumers that take part; none: all.
    pub(crate) consumers: Option<BTreeSet<usize>>,
    /// The places of the troubles that happen; none: all.
    pub(crate) troubles: Option<BTreeSet<usize>>,
}

impl Case {
    /// All of a seed's plan.
    pub(crate) fn whole(seed: u64) -> Self {
        Self { seed, messages: None, consumers: None, troubles: None }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |places: &BTreeSet<usize>| places.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        write!(f, "seed={}", self.seed)?;
        if let Some(messages) = self.messages {
            write!(f, " messages={messages}")?;
        }
        if let Some(consumers) = &self.consumers {
            write!(f, " consumers={}", list(consumers))?;
        }
        if let Some(troubles) = &self.troubles {
            write!(f, " troubles={}", list(troubles))?;
        }
        Ok(())
    }
}

/// Why a line is no case.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no part of a case: seed=N messages=N consumers=0,1,… troubles=0,1,…")]
pub(crate) struct NoCase(String);

impl FromStr for Case {
    type Err = NoCase;

    fn from_str(line: &str) -> Result<Self, NoCase> {
        let mut case = Self::whole(0);
        for word in line.split_whitespace() {
            let wrong = || NoCase(word.to_owned());
            let (name, value) = word.split_once('=').ok_or_else(wrong)?;
            let number = || value.parse::<u64>().map_err(|_| wrong());
            let places = || {
                let parts = value.split(',').filter(|part| !part.is_empty());
                parts.map(|part| part.parse::<usize>().map_err(|_| wrong())).collect::<Result<BTreeSet<_>, _>>()
            };
            match name {
                "seed" => case.seed = number()?,
                "messages" => case.messages = Some(number()?),
                "consumers" => case.consumers = Some(places()?),
                "troubles" => case.troubles = Some(places()?),
                _ => return Err(wrong()),
            }
        }
        Ok(case)
    }
}

/// The cases that once failed, each with the comment above it. Lines that begin with `#` are comments.
pub(crate) fn kept() -> Result<Vec<Case>, NoCase> {
    let lines = include_str!("kept.txt").lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_is_written() {
        for line in ["seed=7", "seed=9 messages=12 consumers=0,3 troubles=", "seed=1 troubles=4,5"] {
            assert_eq!(line.parse::<Case>().unwrap().to_string(), line);
        }
        assert!("seed=x".parse::<Case>().is_err() && "sed=1".parse::<Case>().is_err());
    }

    #[test]
    fn the_kept_cases_can_be_read() {
        assert!(!kept().unwrap().is_empty());
    }
}
