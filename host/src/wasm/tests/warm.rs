//! Instances that serve several attempts: when they do, when they are dropped, and what an audit notices.

use std::time::Duration;

use pelton_core::policy::Reuse;

use super::guest::{STATE, guest, handler, save};
use super::*;
use crate::clock::Stopwatch;
use crate::wasm::warm::Difference;

const REUSE: Reuse = Reuse { invocations_max: 1_000, age_max_ms: 3_600_000, audit_one_in: None };
/// Every attempt is audited.
const AUDITED: Reuse = Reuse { audit_one_in: Some(1), ..REUSE };
/// A global that counts the attempts of the instance, its value in memory at 128.
const COUNT: &str =
    "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.store8 (i32.const 128) (global.get $n))";
const GLOBAL: &str = "(global $n (mut i32) (i32.const 0))";

/// A consumer whose attempts are made one after the other on one thread.
struct Thread {
    kept: Kept<'static>,
    setup: Setup,
    identity: Arc<Identity>,
    plugin: Plugin,
}

impl Thread {
    fn of(component: &[u8]) -> Self {
        let setup = Setup::default();
        let plugin = setup.load(component).unwrap();
        Self { kept: Kept::default(), identity: setup.identity(), setup, plugin }
    }

    fn attempt(&mut self, reuse: &Reuse) -> Outcome {
        self.setup.seed += 1;
        let limits = RunLimits::new(self.setup.timeout_ms, self.setup.memory_bytes, &self.setup.effects);
        let (plugin, identity) = (&self.plugin, &self.identity);
        let serves = Serves { plugin, limits: &limits, identity, begun: Stopwatch::start() };
        let transaction = self.setup.transaction();
        SANDBOX.run_kept(&mut self.kept, reuse, serves, transaction, 1, self.setup.seed).unwrap()
    }

    /// Which attempt of its instance each of these was.
    fn counts(&mut self, reuse: &Reuse, attempts: usize) -> Vec<u8> {
        (0..attempts).map(|_| value_of(&self.attempt(reuse).result.unwrap(), "k")[0]).collect()
    }
}

/// Writes which attempt of its instance this is.
fn counting() -> Vec<u8> {
    guest(STATE, GLOBAL, "", &format!("{COUNT}{}", save(128, 1)))
}

#[test]
fn an_instance_serves_until_its_last_attempt() {
    let mut thread = Thread::of(&counting());
    assert_eq!(thread.counts(&Reuse { invocations_max: 3, ..REUSE }, 7), [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(Thread::of(&counting()).counts(&Reuse { invocations_max: 1, ..REUSE }, 2), [1, 1]);
}

#[test]
fn an_instance_that_is_too_old_serves_no_more() {
    let mut thread = Thread::of(&counting());
    assert_eq!(thread.counts(&Reuse { age_max_ms: 0, ..REUSE }, 3), [1, 1, 1]);
    assert_eq!(thread.counts(&REUSE, 1), [2]);
    std::thread::sleep(Duration::from_millis(11));
    assert_eq!(thread.counts(&Reuse { age_max_ms: 10, ..REUSE }, 1), [1]);
    thread.kept.drop_older(Duration::ZERO);
    assert!(thread.kept.is_empty());
    assert_eq!(thread.counts(&REUSE, 1), [1]);
}

#[test]
fn an_instance_serves_nobody_under_other_rules() {
    let mut thread = Thread::of(&counting());
    assert_eq!(thread.counts(&REUSE, 2), [1, 2]);
    // Equal, and made anew: that is what a changed manifest does.
    thread.identity = thread.setup.identity();
    assert_eq!(thread.counts(&REUSE, 2), [1, 2]);
    thread.setup.memory_bytes += 1 << 16;
    assert_eq!(thread.counts(&REUSE, 2), [1, 2]);
    thread.plugin = thread.setup.load(&guest(STATE, GLOBAL, "", &format!("{COUNT}{COUNT}{}", save(128, 1)))).unwrap();
    assert_eq!(thread.counts(&REUSE, 2), [2, 4]);
}

#[test]
fn effects_and_readings_of_one_attempt_are_not_those_of_the_next() {
    let mut thread = Thread::of(&guest::counter());
    for _ in 0..3 {
        let writes = thread.attempt(&REUSE).result.unwrap();
        assert_eq!((writes.state.len(), writes.events.len()), (1, 1));
    }
}

#[test]
fn a_failure_in_an_instance_that_served_before_is_tried_in_a_fresh_one() {
    let third_traps = format!("{COUNT}(if (i32.eq (global.get $n) (i32.const 3)) (then unreachable)){}", save(128, 1));
    let mut thread = Thread::of(&guest(STATE, GLOBAL, "", &third_traps));
    // The third attempt is made again in a fresh instance, which is not kept.
    assert_eq!(thread.counts(&REUSE, 5), [1, 2, 1, 1, 2]);
    still_serves();
}

#[test]
fn a_plugin_that_fills_its_memory_slowly_goes_on() {
    // A page more at every attempt; the limit is 256 in all, and the guest begins with 64.
    let grows = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))";
    let mut thread = Thread::of(&handler(STATE, &format!("{grows}{}", save(128, 1))));
    for _ in 0..400 {
        assert!(thread.attempt(&REUSE).result.is_ok());
    }
}

#[test]
fn a_failure_in_a_fresh_instance_stands_and_nothing_is_kept_of_it() {
    let mut thread = Thread::of(&handler(STATE, "unreachable"));
    for _ in 0..2 {
        assert!(matches!(thread.attempt(&AUDITED), Outcome { result: Err(Failure::Trap { .. }), differs: None }));
        assert!(thread.kept.is_empty());
    }
}

#[test]
fn an_attempt_that_runs_too_long_is_not_made_again() {
    let second_spins =
        format!("{COUNT}(if (i32.eq (global.get $n) (i32.const 2)) (then (loop $again (br $again)))){}", save(128, 1));
    let mut thread = Thread::of(&guest(STATE, GLOBAL, "", &second_spins));
    thread.setup.timeout_ms = 50;
    assert_eq!(thread.counts(&REUSE, 1), [1]);
    assert!(matches!(thread.attempt(&REUSE).result, Err(Failure::Timeout { limit_ms: 50 })));
    assert!(thread.kept.is_empty());
}

#[test]
fn an_audit_notices_what_was_kept_and_the_fresh_instance_is_right() {
    let mut thread = Thread::of(&counting());
    let first = thread.attempt(&AUDITED);
    assert_eq!(first.differs, None);
    let second = thread.attempt(&AUDITED);
    assert_eq!(second.differs, Some(Difference::State));
    assert_eq!(value_of(&second.result.unwrap(), "k"), [1]);
}

#[test]
fn an_audit_of_a_plugin_that_keeps_nothing_finds_nothing() {
    let mut thread = Thread::of(&guest::counter());
    for _ in 0..10 {
        let outcome = thread.attempt(&AUDITED);
        assert!(outcome.result.is_ok() && outcome.differs.is_none());
    }
}

#[test]
fn an_audit_writes_no_second_line_into_the_log() {
    let log = r#"(import "pelton:consumer/log@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
    let line = "(call $log (i32.const 2) (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0))";
    let mut thread = Thread::of(&handler(log, line));
    let (_, text) = logged(|| (0..4).map(|_| thread.attempt(&AUDITED).result.is_ok()).collect::<Vec<_>>());
    assert_eq!(text.lines().filter(|line| line.contains("message_id=m-1")).count(), 4, "{text}");
}

#[test]
fn one_thread_keeps_a_bounded_number() {
    let before = SANDBOX.in_use();
    let mut threads = Thread::of(&counting());
    for number in 0..(KEPT_PER_THREAD * 2) {
        let consumer = format!("consumer-{number}").into();
        threads.identity = Arc::new(Identity { consumer, ..Identity::default() });
        assert_eq!(threads.counts(&REUSE, 2), [1, 2]);
    }
    assert!(SANDBOX.in_use().memories <= before.memories + KEPT_PER_THREAD as usize * 2);
    drop(threads);
    still_serves();
}

#[test]
fn what_a_fresh_instance_left_holds_its_place_until_it_is_taken_down() {
    let settings = Settings { instances_max: 1, kept_max: 1, ..Settings::default() };
    let sandbox = Sandbox::new(&settings).unwrap();
    let setup = Setup::default();
    let identity = setup.identity();
    let plugin = sandbox.load(&guest::counter(), &terms(setup.identity())).unwrap();
    let limits = RunLimits::new(setup.timeout_ms, setup.memory_bytes, &setup.effects);
    let serves = Serves { plugin: &plugin, limits: &limits, identity: &identity, begun: Stopwatch::start() };
    let mut kept = Kept::default();
    for _ in 0..3 {
        sandbox.run_spending(&mut kept, serves, setup.transaction(), 1, 1).unwrap().unwrap();
        assert_eq!(sandbox.in_use().memories, 1);
    }
    kept.clear();
    assert_eq!(sandbox.in_use().memories, 0);
    // A manifest may change its mind between two messages of a run: nobody waits for the place that their own thread holds.
    sandbox.run_spending(&mut kept, serves, setup.transaction(), 1, 1).unwrap().unwrap();
    sandbox.run_kept(&mut kept, &REUSE, serves, setup.transaction(), 1, 1).unwrap().result.unwrap();
    assert_eq!(sandbox.in_use().memories, 1);
}
