//! The checker against transcripts made by hand: each violation is found, and a sound transcript has none.

use super::*;
use crate::chain;

/// The events of a host that does everything right for one key's messages `1..=count`.
fn faultless(key: &str, count: u64) -> Vec<LedgerEvent> {
    let mut folded = chain::START;
    (1..=count)
        .map(|n| {
            folded = chain::fold(folded, n);
            LedgerEvent { key: key.to_owned(), id: format!("{key}-{n}"), sequence: n * 3, n, count: n, chain: folded }
        })
        .collect()
}

/// Judges events against five messages of key `a`; each event has an id of its own.
fn judge(events: Vec<LedgerEvent>) -> Violations {
    let mut checker = Checker::default();
    for n in 1..=5 {
        checker.published(Published { key: "a".to_owned(), n, id: format!("a-{n}") });
    }
    for (place, event) in events.into_iter().enumerate() {
        checker.event(&format!("event-{place}"), event);
    }
    let verdict = checker.verdict();
    assert_eq!(verdict.messages, 5);
    assert_eq!(verdict.violations.total() == 0, verdict.details.is_empty(), "every violation is put in words");
    verdict.violations
}

/// What the plug-in does with these messages in this order.
fn applied(order: &[u64]) -> Vec<LedgerEvent> {
    let mut folded = chain::START;
    let mut count = 0;
    let event = |n: &u64| {
        folded = chain::fold(folded, *n);
        count += 1;
        LedgerEvent { key: "a".to_owned(), id: format!("a-{n}"), sequence: n * 3, n: *n, count, chain: folded }
    };
    order.iter().map(event).collect()
}

#[test]
fn a_faultless_run_has_no_violations() {
    assert_eq!(judge(faultless("a", 5)), Violations::default());
}

#[test]
fn an_event_published_twice_under_one_id_counts_once() {
    let mut checker = Checker::default();
    checker.published(Published { key: "a".to_owned(), n: 1, id: "a-1".to_owned() });
    for event in [faultless("a", 1), faultless("a", 1)].concat() {
        checker.event("the-same", event);
    }
    assert_eq!(checker.verdict().violations, Violations::default());
    assert_eq!(checker.missing(), 0);
}

#[test]
fn a_message_that_was_never_applied_is_lost() {
    assert_eq!(judge(applied(&[1, 2, 4, 5])), Violations { lost: 1, ..Violations::default() });
    assert_eq!(judge(applied(&[1, 2, 3])), Violations { lost: 2, ..Violations::default() });
    assert_eq!(judge(Vec::new()), Violations { lost: 5, ..Violations::default() });
}

#[test]
fn a_message_applied_twice_is_doubled() {
    assert_eq!(judge(applied(&[1, 2, 2, 3, 4, 5])), Violations { doubled: 1, ..Violations::default() });
    assert_eq!(judge(applied(&[1, 2, 3, 4, 5, 1])), Violations { doubled: 1, ..Violations::default() });
}

#[test]
fn messages_applied_in_another_order_are_reordered() {
    assert_eq!(judge(applied(&[1, 3, 2, 4, 5])), Violations { reordered: 1, ..Violations::default() });
}

#[test]
fn attempts_side_by_side_are_found_by_their_equal_counts() {
    let mut events = applied(&[1, 2, 4, 5]);
    let read_by_both = events[0].chain;
    let lost_update = LedgerEvent {
        id: "a-3".to_owned(),
        n: 3,
        sequence: 9,
        count: 2,
        chain: chain::fold(read_by_both, 3),
        ..events[1].clone()
    };
    events.insert(2, lost_update);
    let violations = judge(events);
    assert!(violations.reordered > 0, "{violations:?}");
    assert_eq!(violations.lost + violations.doubled + violations.foreign, 0, "{violations:?}");
}

#[test]
fn an_applied_message_whose_event_is_missing_is_unpublished() {
    let mut events = faultless("a", 5);
    events.drain(1..3);
    assert_eq!(judge(events), Violations { unpublished: 2, ..Violations::default() });
}

#[test]
fn a_missing_event_and_a_lost_message_are_told_apart() {
    let mut events = applied(&[1, 3, 4, 5]);
    events.remove(2);
    assert_eq!(judge(events), Violations { lost: 1, unpublished: 1, ..Violations::default() });
}

#[test]
fn events_that_leave_in_another_order_are_reordered() {
    let mut events = faultless("a", 5);
    events.swap(2, 3);
    assert_eq!(judge(events), Violations { reordered: 1, ..Violations::default() });
}

#[test]
fn state_that_follows_from_nothing_is_found() {
    let mut events = faultless("a", 5);
    events[4].chain ^= 1;
    assert_eq!(judge(events), Violations { reordered: 1, ..Violations::default() });
}

#[test]
fn an_event_of_nothing_published_is_foreign() {
    let mut events = faultless("a", 5);
    events.push(LedgerEvent { id: "nobody".to_owned(), n: 6, count: 6, ..events[4].clone() });
    assert_eq!(judge(events), Violations { foreign: 1, ..Violations::default() });
}

#[test]
fn an_event_that_says_another_number_is_foreign_and_its_message_lost() {
    let mut events = faultless("a", 5);
    events[4].n = 4;
    assert_eq!(judge(events), Violations { foreign: 1, lost: 1, ..Violations::default() });
}

#[test]
fn keys_are_judged_apart() {
    let mut checker = Checker::default();
    for key in ["a", "b"] {
        (1..=3).for_each(|n| checker.published(Published { key: key.to_owned(), n, id: format!("{key}-{n}") }));
    }
    let of_both = faultless("a", 3).into_iter().zip(faultless("b", 2)).flat_map(|(a, b)| [a, b]);
    of_both
        .chain(faultless("a", 3).into_iter().skip(2))
        .for_each(|event| checker.event(&format!("{}{}", event.key, event.n), event));
    assert_eq!(checker.missing(), 1);
    assert_eq!(checker.verdict().violations, Violations { lost: 1, ..Violations::default() });
}
