//! A stream's messages on a consumer's subjects, one by one and in order, without a consumer: for messages that the client library can't read.

use async_nats::jetstream::Context;

use crate::nats::stored::{Stored, Trouble, Which, get};

/// The next message of one subject pattern.
#[derive(Debug)]
enum Head {
    /// Not looked for since the last one was taken.
    Unknown,
    /// There was none when it was looked for.
    Nothing,
    Found(Box<Stored>),
}

/// Where the reading is. Every call can be dropped while it waits, and loses nothing.
#[derive(Debug)]
pub(super) struct InOrder {
    stream: Box<str>,
    heads: Vec<(Box<str>, Head)>,
    /// The lowest sequence that was not looked at.
    next: u64,
    /// Taken from its head; what follows it is being looked for.
    taken: Option<Box<Stored>>,
}

impl InOrder {
    pub(super) fn new(stream: &str, subjects: &[Box<str>], after: u64) -> Self {
        let heads = subjects.iter().map(|subject| (subject.clone(), Head::Unknown)).collect();
        Self { stream: stream.into(), heads, next: after.saturating_add(1), taken: None }
    }

    /// The next message, and whether there is another one behind it; none: that was all for now.
    pub(super) async fn next(&mut self, jetstream: &Context) -> Result<Option<(Stored, bool)>, Trouble> {
        if self.taken.is_none() {
            self.look(jetstream).await?;
            self.taken = self.pop();
        }
        if self.taken.is_none() {
            return Ok(None);
        }
        self.look(jetstream).await?;
        let more = self.heads.iter().any(|(_, head)| matches!(head, Head::Found(_)));
        Ok(self.taken.take().map(|taken| (*taken, more)))
    }

    async fn look(&mut self, jetstream: &Context) -> Result<(), Trouble> {
        self.look_where(jetstream, |head| !matches!(head, Head::Found(_))).await?;
        let found = self.heads.iter().any(|(_, head)| matches!(head, Head::Found(_)));
        if found && self.heads.len() > 1 {
            // Where there was nothing, a message may have come before one that was found afterwards.
            self.look_where(jetstream, |head| matches!(head, Head::Nothing)).await?;
        }
        Ok(())
    }

    async fn look_where(&mut self, jetstream: &Context, wanted: impl Fn(&Head) -> bool) -> Result<(), Trouble> {
        for (subjects, head) in self.heads.iter_mut().filter(|(_, head)| wanted(head)) {
            let which = Which::first_from(self.next, subjects);
            *head = match get(jetstream, &self.stream, which).await? {
                Some(found) => Head::Found(Box::new(found)),
                None => Head::Nothing,
            };
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Box<Stored>> {
        let sequence = |head: &Head| if let Head::Found(found) = head { Some(found.sequence) } else { None };
        let (_, head) = self
            .heads
            .iter_mut()
            .filter(|(_, head)| sequence(head).is_some())
            .min_by_key(|(_, head)| sequence(head))?;
        let Head::Found(found) = std::mem::replace(head, Head::Unknown) else { return None };
        self.next = found.sequence.saturating_add(1);
        // Patterns that overlap find the same message.
        for (_, head) in &mut self.heads {
            if sequence(head).is_some_and(|other| other < self.next) {
                *head = Head::Unknown;
            }
        }
        Some(found)
    }
}
