//! The executors: runs and fetches against the real store, as `host/src/executor.rs` makes them, with scripts in place of plug-ins.

use std::sync::Arc;

use bytes::Bytes;
use pelton_core::grants::Grants;
use pelton_core::ids::Version;
use pelton_core::message::{Failure, Message};
use pelton_core::transaction::{CallError, EffectLimits, ReadError, StateView, Terms, Transaction};
use pelton_core::{Fetch, Input, Job, JobResult, LaneId, Run, Turn, VersionRule};

use crate::books::{Books, Fate, Fold, MessageId, key_number, message_id};
use crate::ledger::state_entry;
use crate::script::{Content, How, Script};
use crate::violation::{Broken, Checked, Violation, holds, there};
use crate::world::{Happening, World};

/// What an attempt comes to, unless the store can't be read or something is wrong.
type Attempt<T> = Result<T, Stopped>;

/// Why an attempt did not come to an end.
enum Stopped {
    Wrong(Violation),
    Unreadable(ReadError),
}

impl From<Violation> for Stopped {
    fn from(violation: Violation) -> Self {
        Self::Wrong(violation)
    }
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<CallError> for Stopped {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Read(error) => Self::Unreadable(error),
            CallError::Limit(limit) => Self::Wrong(Violation { broken: Broken::Limit, what: limit.to_string() }),
        }
    }
}

impl Books {
    /// What all its attempts have in common.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            grants: Grants { emit: vec!["out.>".into()] },
            limits: EffectLimits::default(),
            mark_ttl_ms: 86_400_000,
            consumer_name: self.name.clone(),
            shared_state: self.policy.shared_state,
            version: Version([1; 32]).to_string().into(),
        }
    }
}

impl World {
    /// An executor takes a run, and makes its attempts up to the first failure, unless it is cut short.
    pub(crate) fn execute(&mut self, lane: LaneId) -> Checked {
        let Some(host) = &mut self.host else { return Ok(()) };
        let Some(Run { consumer, jobs, .. }) = host.life.jobs.remove(&lane) else { return Ok(()) };
        let place = there(self.place(consumer), Broken::Books, || format!("a run of {consumer:?}"))?;
        let draining = self.host.as_ref().is_some_and(|host| host.life.draining);
        let cut = if draining || self.chance.one_in(12) { self.chance.place(jobs.len() + 1) } else { jobs.len() };
        let mut results = Vec::with_capacity(jobs.len());
        let mut busy_us = 0;
        for job in jobs.into_iter().take(cut) {
            let result = match self.attempt(place, job) {
                Ok(result) => result,
                Err(Stopped::Wrong(violation)) => return Err(violation),
                Err(Stopped::Unreadable(error)) => {
                    holds(self.disks.is_down(), Broken::State, || format!("the store can't be read: {error}"))?;
                    return self.disks_end();
                }
            };
            // In every other run attempts are short.
            busy_us += self.chance.below(if self.plan.seed.is_multiple_of(2) { 100 } else { 3_000 });
            let failed = matches!(result, JobResult::Failed { .. });
            results.push(result);
            if failed {
                break;
            }
        }
        self.soon(4, Happening::Tell(Input::RunEnded { consumer, lane, results, busy_us }));
        Ok(())
    }

    /// An executor reads parked messages. The core hears of it a little later.
    pub(crate) fn read(&mut self, fetch: Fetch) -> Checked {
        let Some(host) = &self.host else { return Ok(()) };
        let Fetch { consumer, lane, ticket, after, rows_max, bytes_max } = fetch;
        match host.reader.fetch_parked(consumer, &lane, after, rows_max, bytes_max) {
            Ok(rows) => {
                self.soon(4, Happening::Tell(Input::Fetched { consumer, lane, ticket, rows }));
                Ok(())
            }
            Err(error) => {
                holds(self.disks.is_down(), Broken::State, || format!("the store can't be read: {error}"))?;
                self.disks_end()
            }
        }
    }

    fn attempt(&mut self, place: usize, job: Job) -> Attempt<JobResult> {
        let Job { message, dedup, versions, .. } = job;
        self.tally.attempts += 1;
        let now_ms = self.now().wall_ms;
        let (outage, version) = (self.tick_ms < self.outages_until_ms[place], self.versions[place]);
        let (Some(host), Some(books)) = (&mut self.host, self.ledger.books.get_mut(place)) else {
            return Err(Violation { broken: Broken::Books, what: "a run without a host".into() }.into());
        };
        let id = message_id(&message);
        let (consumer, terms) = (host.ids[place], Arc::clone(&host.terms[place]));
        books.its_turn(&message)?;
        if let Some(mark) = message.mark.filter(|_| dedup) {
            let seen = host.reader.seen(consumer, mark)?;
            books.agrees_on_id(&message, seen)?;
            if seen {
                books.becomes(id, Fate::Duplicate, false)?;
                books.now.lets_go(&message);
                return Ok(JobResult::Duplicate);
            }
        }
        let view = Arc::clone(&host.reader) as Arc<dyn StateView>;
        let mut transaction = Transaction::new(view, terms, consumer, Arc::clone(&message), now_ms);
        if let Some(rule) = versions
            && let Some(passed_over) = books.check_version(rule, &mut transaction)?
        {
            return Ok(passed_over);
        }
        let entry = books.entry(id)?;
        entry.calls += 1;
        let calls = entry.calls;
        let failure =
            if outage { Some(How::Retry.failure()) } else { books.handle(&mut transaction, calls, version)? };
        if let Some(failure) = failure {
            return Ok(JobResult::Failed { version: Version([version; 32]), failure });
        }
        let state_key = transaction.scope().key.clone();
        let writes = transaction.into_writes();
        host.reader.apply(consumer, state_key.as_ref(), message.mark, &writes);
        books.becomes(id, Fate::Applied, false)?;
        books.now.lets_go(&message);
        Ok(JobResult::Applied { version: Version([version; 32]), writes })
    }
}

impl Books {
    /// The store knows an id exactly if it was applied.
    fn agrees_on_id(&self, message: &Message, seen: bool) -> Checked {
        let known = self.now.ids.contains(&(message_id(message).0, message.id.clone()));
        let broken = if known { Broken::Twice } else { Broken::Outcome };
        holds(seen == known, broken, || {
            format!("{}: {} is processed: {known}, the store says {seen}", self.name, message.id)
        })
    }

    /// Whether it is the turn of the message's version; if it is, that version goes into the effects.
    fn check_version(&mut self, rule: VersionRule, transaction: &mut Transaction) -> Attempt<Option<JobResult>> {
        let message = Arc::clone(transaction.message());
        let Some(version) = message.entity_version else { return Ok(None) };
        let key = key_number(&message).unwrap_or_default();
        let (known, model) = (transaction.entity_version()?, self.now.versions.get(&key).copied());
        holds(known == model, Broken::State, || {
            format!("{}: the last version of k{key} is {model:?}, the store says {known:?}", self.name)
        })?;
        match rule.judge(version, known) {
            Turn::Now => {
                transaction.set_entity_version(version);
                Ok(None)
            }
            Turn::Stale => {
                self.becomes(message_id(&message), Fate::Stale, false)?;
                self.now.lets_go(&message);
                Ok(Some(JobResult::Stale))
            }
            Turn::Gap { expected } => {
                self.now.lets_go(&message);
                Ok(Some(JobResult::Gap { expected }))
            }
        }
    }

    /// The plug-in: does what the script says, and keeps a fold of what it applied, key by key.
    fn handle(&mut self, transaction: &mut Transaction, calls: u16, version: u8) -> Attempt<Option<Failure>> {
        let message = Arc::clone(transaction.message());
        let id = message_id(&message);
        let key = key_number(&message).filter(|_| self.keyed);
        let name = self.name.clone();
        let content = Content::decode(&message.payload);
        let content = there(content, Broken::Books, || format!("{name}: {id:?} has a strange payload"))?;
        let fold = self.read_fold(transaction, &state_entry(key), key)?;
        match content.script {
            Script::Fails(how, times) if calls <= u16::from(times) => return Ok(Some(how.failure())),
            Script::Reject => return Ok(Some(Failure::Reject { reason: "by script".into() })),
            Script::Poison(how) if version == 1 => return Ok(Some(how.failure())),
            Script::AfterLater if key.is_some() && fold.highest <= Fold::default().with(id).highest => {
                return Ok(Some(Failure::Park { reason: "by script".into(), after_ms: None }));
            }
            _ => {}
        }
        if let Some(key) = key {
            let fold = fold.with(id);
            transaction.set(&state_entry(Some(key)), fold.bytes(), None)?;
            self.now.folds.insert(Some(key), fold);
        }
        if self.policy.shared_state {
            let found = transaction.get("all")?;
            let all = found.as_deref().map_or(Some(Fold::default()), Fold::read);
            let model = self.now.all;
            holds(all == Some(model), Broken::State, || format!("{name}: {id:?} sees {all:?} of all, not {model:?}"))?;
            transaction.set("all", model.with(id).bytes(), None)?;
        } else if key.is_none() {
            transaction.set(&alone_entry(id), Bytes::from_static(b"1"), None)?;
        }
        self.now.all = self.now.all.with(id);
        if message.mark.is_some() {
            let new = self.now.ids.insert((id.0, message.id.clone()));
            holds(new, Broken::Twice, || format!("{name}: {} is applied again, as {id:?}", message.id))?;
        }
        if let (Some(version), Some(key)) = (message.entity_version, key) {
            self.now.versions.insert(key, version);
        }
        for number in 0..content.events {
            emit(transaction, id, number)?;
        }
        Ok(None)
    }

    /// What the plug-in sees has to be the fold of what was applied.
    fn read_fold(&self, transaction: &mut Transaction, entry: &str, key: Option<u16>) -> Attempt<Fold> {
        let found = transaction.get(entry)?;
        let found = found.as_deref().map_or(Some(Fold::default()), Fold::read);
        let model = if key.is_some() { self.now.folds.get(&key).copied().unwrap_or_default() } else { Fold::default() };
        holds(found == Some(model), Broken::State, || {
            format!("{}: an attempt sees {found:?} of {entry}, and not {model:?}", self.name)
        })?;
        Ok(model)
    }
}

/// Where a message without a key leaves that it was applied.
pub(crate) fn alone_entry((incarnation, sequence): MessageId) -> String {
    format!("m{incarnation}-{sequence}")
}

/// Emits an event whose payload no other event has.
fn emit(transaction: &mut Transaction, (incarnation, sequence): MessageId, number: u8) -> Attempt<()> {
    let payload = Bytes::from(format!("{incarnation} {sequence} {number} {:?}", transaction.scope().consumer));
    let key = (number == 2).then_some("shared");
    let refused = transaction.emit("out.event", payload, &[], key)?.err();
    holds(refused.is_none(), Broken::Books, || format!("an event is refused: {refused:?}"))?;
    Ok(())
}
