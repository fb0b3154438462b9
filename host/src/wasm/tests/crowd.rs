//! Ten consumers in one sandbox, one of them hostile: the nine others' results are what they are without it, and nothing is left behind.

use std::sync::Arc;

use super::cast::{self, Hostile};
use super::*;

/// The sound consumers beside the hostile one.
const SOUND: usize = 9;

/// What a hostile attempt runs with: more to scan than it may, and time for all but those that are to use it up.
fn setup_of(hostile: &Hostile) -> Setup {
    let uses_it_up = hostile.ending.is_some_and(|(kind, _)| kind == "timeout");
    Setup { numbered: 1_000_000, timeout_ms: if uses_it_up { 40 } else { 60_000 }, ..Setup::default() }
}

#[track_caller]
fn ends_as_it_should(hostile: &Hostile, outcome: &Result<WriteSet, Failure>) {
    match (hostile.ending, outcome) {
        (None, Ok(writes)) => assert!(writes.events.is_empty(), "{}: {outcome:?}", hostile.name),
        (Some((kind, words)), Err(failure)) => {
            assert_eq!(failure.kind(), kind, "{}: {failure:?}", hostile.name);
            assert!(failure.reason().contains(words), "{}: {words:?} is not in: {failure:?}", hostile.name);
        }
        _ => panic!("{}: {outcome:?}", hostile.name),
    }
}

/// The sound consumers: each has a name and a payload of its own, and therefore a result of its own.
fn sound() -> Vec<(Setup, Plugin)> {
    const PAYLOADS: [&[u8]; SOUND] = [b"a", b"bb", b"ccc", b"dddd", b"e", b"ff", b"ggg", b"hhhh", b"i"];
    let component = guest::counter();
    let consumer = |payload: &'static [u8]| {
        let setup = Setup { payload, timeout_ms: 60_000, ..Setup::default() };
        let plugin = setup.load(&component).unwrap();
        (setup, plugin)
    };
    PAYLOADS.map(consumer).into()
}

#[test]
fn nine_consumers_beside_a_hostile_one_get_their_own_results_whatever_it_does() {
    let sound = sound();
    for hostile in cast::all() {
        let setup = setup_of(&hostile);
        let plugin = setup.load(&hostile.component).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    ends_as_it_should(&hostile, &setup.attempt_of(&plugin).unwrap());
                }
            });
            for (setup, plugin) in &sound {
                scope.spawn(move || {
                    for _ in 0..20 {
                        let writes = setup.attempt_of(plugin).unwrap().unwrap();
                        assert_eq!(value_of(&writes, "k"), setup.payload);
                        assert_eq!((writes.events.len(), &writes.events[0].payload[..]), (1, setup.payload));
                    }
                });
            }
        });
    }
}

#[test]
fn a_thousand_hostile_attempts_leave_no_instance_and_no_memory() {
    // A sandbox of its own, with one slot for attempts and one for trials: a slot that did not come back would be missed at once.
    let settings = Settings {
        instances_max: 1,
        kept_max: KEPT_PER_THREAD,
        memory_bytes_max: 16 << 20,
        component_bytes_max: 1 << 20,
    };
    let sandbox = Sandbox::new(&settings).unwrap();
    let setup = Setup::default();
    let terms = terms(setup.identity());
    let cast: Vec<_> =
        cast::all().into_iter().map(|hostile| (sandbox.load(&hostile.component, &terms).unwrap(), hostile)).collect();
    let good = sandbox.load(&guest::counter(), &terms).unwrap();
    let round = |times: usize| {
        for _ in 0..times {
            for (plugin, hostile) in &cast {
                ends_as_it_should(hostile, &setup_of(hostile).attempt_in(&sandbox, plugin).unwrap());
            }
        }
        assert_eq!(sandbox.in_use(), InUse::default(), "every instance is gone");
        let writes = setup.attempt_in(&sandbox, &good).unwrap().unwrap();
        assert_eq!(writes.events.len(), 1, "its slots serve again");
    };
    round(1);
    let before = (sandbox.kept_bytes(), resident_bytes());
    round(1_000_usize.div_ceil(cast.len()));
    let after = (sandbox.kept_bytes(), resident_bytes());
    // What a slot keeps warm is bounded by the pool's settings; a leak of the 16 MiB that one attempt in thirty touches would be 500 MiB.
    assert!(after.0 <= 2 * (2 << 20), "the pool keeps {} bytes, {} before", after.0, before.0);
    assert!(after.1 < before.1 + (400 << 20), "resident: {} bytes, {} before", after.1, before.1);
}

/// What the process has in memory, in bytes.
pub(super) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn hostile_attempts_with_no_time_at_all_end_too() {
    let setup = Setup { timeout_ms: 0, numbered: 1_000_000, ..Setup::default() };
    let identity = Arc::new(Identity { consumer: "tester".into(), ..Identity::default() });
    for hostile in cast::all() {
        let plugin = SANDBOX.load(&hostile.component, &terms(Arc::clone(&identity))).unwrap();
        drop(setup.attempt_of(&plugin).unwrap());
    }
    still_serves();
}
