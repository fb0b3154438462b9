//! Ways to run into a limit.

use std::hint::black_box;

use pelton_sdk::{log, state};

/// Never returns.
pub(crate) fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Takes memory until there is no more, and touches all of it.
pub(crate) fn allocate_without_end() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(black_box(vec![1; 1 << 20]));
    }
}

/// Uses the stack up.
#[allow(unconditional_recursion, reason = "that is what it is for")]
pub(crate) fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    recurse(depth.wrapping_add(1)).wrapping_add(frame.iter().sum::<u64>())
}

/// Reads the same 200 entries again and again.
pub(crate) fn list_without_end() -> ! {
    (0..200).for_each(|n| state::set_bytes(&format!("list/{n:03}"), b"x"));
    loop {
        black_box(state::list("list/").count());
    }
}

/// 4 MiB to each of the standard streams.
pub(crate) fn flood_stdout() {
    let line = "x".repeat(1023);
    for _ in 0..4096 {
        println!("{line}");
        eprintln!("{line}");
    }
}

/// 10,000 lines with a field each.
pub(crate) fn flood_log() {
    for n in 0..10_000 {
        log::info("one of many lines", &[("n", &n)]);
    }
}
