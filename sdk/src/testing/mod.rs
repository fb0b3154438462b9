//! An in-memory host for `cargo test`: runs a handler natively, with the semantics that it has in the real one.
//!
//! Limits, grants, reads of what was written, effects that come together or not at all, ids that are known, state per key, a clock that stands
//! still: all of it is as in the sandbox, which a test of the host compares with this module case by case.
//!
//! ```
//! use pelton_sdk::testing::{Host, message};
//! use pelton_sdk::{Message, Result, outbox, state};
//!
//! fn handle(message: Message) -> Result {
//!     let orders = state::get::<u64>("orders")?.unwrap_or(0) + 1;
//!     state::set("orders", &orders)?;
//!     if orders == 2 {
//!         outbox::emit(format!("regulars.{}", message.text()?), &orders)?;
//!     }
//!     Ok(())
//! }
//!
//! let mut host = Host::new(handle).emits("regulars.*");
//! for id in ["order-1", "order-2", "order-2"] {
//!     host.handle(&message("orders.new").key("alice").id(id).text("alice"));
//! }
//! assert_eq!(host.state::<u64>("alice", "orders"), Some(2), "the same id twice is one order");
//! assert_eq!(host.events().len(), 1);
//! assert_eq!(host.events()[0].subject, "regulars.alice");
//! ```
//!
//! What is the real host's alone: it ends an attempt that takes too long or too much memory (here it goes on), reads key and id by the manifest's
//! rules (here the test says them), holds keys in trouble and sets messages aside (here [`Host::handle`] gives back how the attempt failed), and seeds
//! what the handler draws from the system's randomness. `pelton test` runs the component itself.

mod attempt;
pub(crate) mod calls;
mod delivery;
mod host;
mod limits;
mod outcome;
mod subjects;

pub use delivery::{Delivery, message};
pub use host::Host;
pub use limits::Limits;
pub use outcome::{Attempt, Event, Line, Outcome};
