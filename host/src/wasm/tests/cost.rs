//! Components that would take very long to compile are refused before the compiler begins.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;

/// Compiling any of these would take minutes to hours; looking at them does not.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

#[track_caller]
fn refused(modules: &str) -> LoadError {
    let component = wat::parse_str(format!("(component {modules})")).unwrap();
    // Larger than the sandbox of the other tests takes: what is tested is another limit.
    let settings = Settings {
        instances_max: 1,
        kept_max: KEPT_PER_THREAD,
        memory_bytes_max: 1 << 20,
        component_bytes_max: 64 << 20,
    };
    let sandbox = Sandbox::new(&settings).unwrap();
    let begun = Instant::now();
    let error = sandbox.load(&component, &terms(Setup::default().identity())).expect_err("is refused");
    assert!(begun.elapsed() < LOOK_LIMIT, "{:?}", begun.elapsed());
    assert!(!error.to_string().contains('\n') && !error.may_pass(), "{error}");
    error
}

/// A function of `depth` loops in each other, with locals that are all set in the innermost.
fn nest(locals: usize, depth: usize) -> String {
    let mut text = format!("(func (local {}) {}", "i32 ".repeat(locals), "(loop ".repeat(depth));
    (0..locals).for_each(|n| write!(text, "(local.set {n} (i32.add (local.get {n}) (i32.const 1)))").unwrap());
    text + &"br 0)".repeat(depth) + ")"
}

#[test]
fn a_huge_function_is_named_with_its_place() {
    let huge = format!("(func nop) (func nop) (func {})", "nop ".repeat(1025 << 10));
    let error = refused(&format!("(core module) (core module {huge})"));
    let LoadError::HugeFunction { module: 1, function: 2, bytes, max: 1_048_576 } = error else { panic!("{error:?}") };
    assert!((1025 << 10..1026 << 10).contains(&bytes), "{bytes}");
    assert_eq!(error.kind(), "huge-function");
}

#[test]
fn a_tangled_function_is_named_whatever_the_values_are_that_live_across_its_blocks() {
    let locals = nest(1_000, 6_000);
    let of_type = "i32 ".repeat(1_000);
    let parameters = format!("(func (param {of_type}) {}{})", "(loop ".repeat(10_001), ")".repeat(10_001));
    let stack = format!(
        "(type $t (func (param {of_type}))) (func {} {}{})",
        "(i32.const 0) ".repeat(1_000),
        "(loop (type $t) ".repeat(10_001),
        ")".repeat(10_001)
    );
    for function in [locals, parameters, stack] {
        let error = refused(&format!("(core module (func nop) {function})"));
        let place =
            matches!(error, LoadError::TangledFunction { module: 0, function: 0 | 1, tangle: 10_000_001.., .. });
        assert!(place, "{error:?}");
        assert_eq!(error.kind(), "tangled-function");
    }
}

#[test]
fn many_functions_none_of_which_is_too_tangled_are_refused_together() {
    let error = refused(&format!("(core module {})", nest(1_000, 4_000).repeat(13)));
    assert_eq!(error, LoadError::Tangled { max: 100_000_000 });
    // Neither does it help to spread them over modules.
    let error = refused(&format!("(core module {})", nest(1_000, 4_000)).repeat(13));
    assert_eq!(error.kind(), "tangled");
}

#[test]
fn too_many_functions_are_refused_however_small_they_are() {
    let module = format!("(core module {})", "(func)".repeat(125_001));
    assert_eq!(refused(&module.repeat(2)), LoadError::TooManyFunctions { max: 250_000 });
}

#[test]
fn functions_within_the_limits_compile() {
    let component = wat::parse_str(format!("(component (core module {} (func)))", nest(100, 100))).unwrap();
    let error = Setup::default().load(&component).expect_err("it is no plug-in");
    assert_eq!(error.kind(), "wrong-world");
}
