//! The booking system of a theatre: commands to `tickets.SHOW.COMMAND` in, an event for every outcome to `ticket-events.SHOW` out.
//!
//! The ordering key is the show: its commands are handled one at a time, so that two customers never get one seat. What is decided is in
//! `booking`, which knows no host; here are the state, the request ids and the events.

mod booking;

use std::time::Duration;

use booking::{Action, Outcome, Seat};
use pelton_sdk::{Failure, Message, Result, context, idempotency, log, outbox, state};
use serde::{Deserialize, Serialize};

/// For `open`.
#[derive(Deserialize)]
struct Opening {
    request: String,
    seats: Option<u32>,
}

/// For `reserve`, `book` and `cancel`.
#[derive(Deserialize)]
struct Claim {
    request: String,
    seat: u32,
    customer: String,
}

#[derive(Serialize)]
struct Event<'a> {
    show: &'a str,
    request: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let show = message.key.as_deref().ok_or_else(|| Failure::reject("the manifest names no ordering key"))?;
    let command = message.subject_token(3).unwrap_or_default();
    let (request, outcomes) = match command {
        "open" => {
            let opening: Opening = message.json()?;
            let outcomes = once(&opening.request, || open(opening.seats))?;
            (opening.request, outcomes)
        }
        "reserve" => claim(Action::Reserve, &message)?,
        "book" => claim(Action::Book, &message)?,
        "cancel" => claim(Action::Cancel, &message)?,
        _ => return Err(Failure::reject(format!("no such command: {}", message.subject))),
    };
    for outcome in &outcomes {
        outbox::emit(format!("ticket-events.{show}"), &Event { show, request: &request, outcome })?;
        log::info("decided", &[("request", &request), ("outcome", &outcome.name())]);
    }
    Ok(())
}

/// A customer who pressed the button twice sent two messages with one request id: the second has no effect but its event.
fn once(request: &str, decide: impl FnOnce() -> Result<Vec<Outcome>>) -> Result<Vec<Outcome>> {
    if idempotency::first(request) { decide() } else { Ok(vec![Outcome::Repeated]) }
}

fn open(seats: Option<u32>) -> Result<Vec<Outcome>> {
    let seats = match seats {
        Some(seats) => seats,
        None => context::config_parsed("seats")?.unwrap_or(100),
    };
    let outcome = booking::open(state::get("seats")?, seats);
    if let Outcome::Opened { seats } = &outcome {
        state::set("seats", seats)?;
    }
    Ok(vec![outcome])
}

fn claim(action: Action, message: &Message) -> Result<(String, Vec<Outcome>)> {
    let claim: Claim = message.json()?;
    let outcomes = once(&claim.request, || {
        let minutes: u64 = context::config_parsed("hold_minutes")?.unwrap_or(10);
        let hold = Duration::from_secs(minutes.saturating_mul(60));
        let entry = format!("seat/{}", claim.seat);
        let before: Option<Seat> = state::get(&entry)?;
        let theatre = booking::Theatre { seats: state::get("seats")?, now_ms: context::now_ms(), hold };
        let decision = theatre.decide(action, claim.seat, &claim.customer, before);
        match decision.seat {
            Some(seat) => state::set(&entry, &seat)?,
            None => state::delete(&entry),
        }
        Ok(decision.outcomes)
    })?;
    Ok((claim.request, outcomes))
}
