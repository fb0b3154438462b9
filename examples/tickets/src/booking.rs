//! What becomes of a command: pure decisions over one seat, without the host.
//!
//! A reservation holds a seat until a time. Nothing watches that time: the next command for the seat finds the reservation over, says so
//! with an `expired` outcome, and goes on as if the seat were free.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who has a seat. A free seat is none at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(crate) enum Seat {
    /// Until this time, in milliseconds since 1970-01-01 UTC.
    Reserved { customer: String, until_ms: u64 },
    /// For good.
    Booked { customer: String },
}

/// What a customer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Reserve,
    Book,
    Cancel,
}

/// What became of it; the events' payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub(crate) enum Outcome {
    Opened { seats: u32 },
    Reserved { seat: u32, customer: String, until_ms: u64 },
    Booked { seat: u32, customer: String },
    Cancelled { seat: u32, customer: String },
    Expired { seat: u32, customer: String },
    Refused { reason: Refusal },
    Repeated,
}

impl Outcome {
    /// The word for it in events and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Reserved { .. } => "reserved",
            Self::Booked { .. } => "booked",
            Self::Cancelled { .. } => "cancelled",
            Self::Expired { .. } => "expired",
            Self::Refused { .. } => "refused",
            Self::Repeated => "repeated",
        }
    }
}

/// Why a command has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refusal {
    /// No one opened the show.
    NotOpen,
    /// The show is open already.
    AlreadyOpen,
    /// Seats count from 1 to the number that the show was opened with.
    NoSuchSeat,
    /// Someone, perhaps this customer, holds it.
    SeatReserved,
    /// Someone, perhaps this customer, has booked it.
    SeatBooked,
    /// Only who holds a reservation can book.
    NotReservedByYou,
    /// Only one's own reservation or booking can be cancelled.
    NotYours,
}

/// What decisions depend on besides the seat.
pub(crate) struct Theatre {
    /// How many seats the show has; none if it isn't open.
    pub(crate) seats: Option<u32>,
    pub(crate) now_ms: u64,
    /// How long a reservation holds.
    pub(crate) hold: Duration,
}

/// The seat afterwards, and what to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) seat: Option<Seat>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Opens a show, once.
pub(crate) fn open(open_with: Option<u32>, seats: u32) -> Outcome {
    match open_with {
        Some(_) => Outcome::Refused { reason: Refusal::AlreadyOpen },
        None => Outcome::Opened { seats },
    }
}

impl Theatre {
    /// Decides what a customer's command does to a seat.
    pub(crate) fn decide(&self, action: Action, number: u32, customer: &str, seat: Option<Seat>) -> Decision {
        let refusal = match self.seats {
            None => Some(Refusal::NotOpen),
            Some(seats) if number == 0 || number > seats => Some(Refusal::NoSuchSeat),
            Some(_) => None,
        };
        if let Some(reason) = refusal {
            return Decision { seat, outcomes: vec![Outcome::Refused { reason }] };
        }
        let mut outcomes = Vec::with_capacity(2);
        let seat = match seat {
            Some(Seat::Reserved { customer, until_ms }) if until_ms <= self.now_ms => {
                outcomes.push(Outcome::Expired { seat: number, customer });
                None
            }
            other => other,
        };
        let (seat, outcome) = match action {
            Action::Reserve => self.reserve(number, customer, seat),
            Action::Book => book(number, customer, seat),
            Action::Cancel => cancel(number, customer, seat),
        };
        outcomes.push(outcome);
        Decision { seat, outcomes }
    }

    fn reserve(&self, number: u32, customer: &str, seat: Option<Seat>) -> (Option<Seat>, Outcome) {
        match seat {
            None => {
                let hold_ms = u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX);
                let until_ms = self.now_ms.saturating_add(hold_ms);
                let customer = customer.to_owned();
                let outcome = Outcome::Reserved { seat: number, customer: customer.clone(), until_ms };
                (Some(Seat::Reserved { customer, until_ms }), outcome)
            }
            Some(Seat::Reserved { .. }) => (seat, Outcome::Refused { reason: Refusal::SeatReserved }),
            Some(Seat::Booked { .. }) => (seat, Outcome::Refused { reason: Refusal::SeatBooked }),
        }
    }
}

fn book(number: u32, customer: &str, seat: Option<Seat>) -> (Option<Seat>, Outcome) {
    match seat {
        Some(Seat::Reserved { customer: holder, .. }) if holder == customer => {
            let outcome = Outcome::Booked { seat: number, customer: holder.clone() };
            (Some(Seat::Booked { customer: holder }), outcome)
        }
        Some(Seat::Booked { .. }) => (seat, Outcome::Refused { reason: Refusal::SeatBooked }),
        Some(Seat::Reserved { .. }) | None => (seat, Outcome::Refused { reason: Refusal::NotReservedByYou }),
    }
}

fn cancel(number: u32, customer: &str, seat: Option<Seat>) -> (Option<Seat>, Outcome) {
    match seat {
        Some(Seat::Reserved { customer: holder, .. } | Seat::Booked { customer: holder }) if holder == customer => {
            (None, Outcome::Cancelled { seat: number, customer: holder })
        }
        other => (other, Outcome::Refused { reason: Refusal::NotYours }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_ms: u64) -> Theatre {
        Theatre { seats: Some(10), now_ms, hold: Duration::from_millis(100) }
    }

    fn reserved(customer: &str, until_ms: u64) -> Option<Seat> {
        Some(Seat::Reserved { customer: customer.to_owned(), until_ms })
    }

    fn booked(customer: &str) -> Option<Seat> {
        Some(Seat::Booked { customer: customer.to_owned() })
    }

    fn refused(seat: Option<Seat>, reason: Refusal) -> Decision {
        Decision { seat, outcomes: vec![Outcome::Refused { reason }] }
    }

    #[test]
    fn a_free_seat_is_reserved_then_booked_then_cancelled() {
        let ada = || "ada".to_owned();
        let decision = at(1_000).decide(Action::Reserve, 3, "ada", None);
        assert_eq!(decision.seat, reserved("ada", 1_100));
        assert_eq!(decision.outcomes, [Outcome::Reserved { seat: 3, customer: ada(), until_ms: 1_100 }]);
        let decision = at(1_099).decide(Action::Book, 3, "ada", decision.seat);
        assert_eq!((decision.seat.clone(), decision.outcomes.len()), (booked("ada"), 1));
        let decision = at(9_000).decide(Action::Cancel, 3, "ada", decision.seat);
        assert_eq!(decision, Decision { seat: None, outcomes: vec![Outcome::Cancelled { seat: 3, customer: ada() }] });
    }

    #[test]
    fn what_is_not_possible_is_refused_and_changes_nothing() {
        for (action, customer, seat, reason) in [
            (Action::Reserve, "bob", reserved("ada", 2_000), Refusal::SeatReserved),
            (Action::Reserve, "bob", booked("ada"), Refusal::SeatBooked),
            (Action::Book, "bob", reserved("ada", 2_000), Refusal::NotReservedByYou),
            (Action::Book, "bob", None, Refusal::NotReservedByYou),
            (Action::Book, "ada", booked("ada"), Refusal::SeatBooked),
            (Action::Cancel, "bob", booked("ada"), Refusal::NotYours),
            (Action::Cancel, "bob", None, Refusal::NotYours),
        ] {
            let decision = at(1_000).decide(action, 1, customer, seat.clone());
            assert_eq!(decision, refused(seat, reason), "{action:?} by {customer}");
        }
    }

    #[test]
    fn a_reservation_that_is_over_is_told_of_and_the_seat_is_free() {
        let expired = Outcome::Expired { seat: 1, customer: "ada".to_owned() };
        let decision = at(1_000).decide(Action::Reserve, 1, "bob", reserved("ada", 1_000));
        assert_eq!(decision.seat, reserved("bob", 1_100));
        assert_eq!(decision.outcomes.first(), Some(&expired));
        let late = at(1_000).decide(Action::Book, 1, "ada", reserved("ada", 1_000));
        assert_eq!(late.seat, None);
        assert_eq!(late.outcomes, [expired, Outcome::Refused { reason: Refusal::NotReservedByYou }]);
    }

    #[test]
    fn seats_exist_only_while_the_show_is_open() {
        let closed = Theatre { seats: None, ..at(0) };
        assert_eq!(closed.decide(Action::Reserve, 1, "ada", None), refused(None, Refusal::NotOpen));
        for number in [0, 11] {
            assert_eq!(at(0).decide(Action::Reserve, number, "ada", None), refused(None, Refusal::NoSuchSeat));
        }
        assert_eq!(open(None, 10), Outcome::Opened { seats: 10 });
        assert_eq!(open(Some(10), 20), Outcome::Refused { reason: Refusal::AlreadyOpen });
    }

    #[test]
    fn events_and_state_read_as_the_readme_says() {
        let outcome = serde_json::to_string(&Outcome::Refused { reason: Refusal::NotReservedByYou }).unwrap();
        assert_eq!(outcome, r#"{"outcome":"refused","reason":"not-reserved-by-you"}"#);
        assert_eq!(serde_json::to_string(&booked("ada")).unwrap(), r#"{"is":"booked","customer":"ada"}"#);
        assert_eq!(serde_json::to_string(&Outcome::Repeated).unwrap(), r#"{"outcome":"repeated"}"#);
    }
}
