//! Ways to spend time, stack and memory.

use std::hint::black_box;

use pelton_sdk::{Result, context};

pub(crate) fn turn_without_end() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Each copy is one instruction that moves 2 MiB.
pub(crate) fn copy_without_end() -> ! {
    let mut bytes = vec![1_u8; 4 << 20];
    loop {
        bytes.copy_within(..2 << 20, 2 << 20);
        black_box(&mut bytes);
    }
}

pub(crate) fn call_without_end() -> ! {
    loop {
        black_box(context::now_ms());
    }
}

pub(crate) fn recurse(depth: u64) -> Result {
    black_box(deeper(depth));
    Ok(())
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    deeper(depth.wrapping_add(1)).wrapping_add(frame.iter().sum::<u64>())
}

pub(crate) fn grow_to_the_cap() -> ! {
    const PAGE_BYTES: usize = 64 << 10;
    loop {
        let before = core::arch::wasm32::memory_grow::<0>(1);
        if before == usize::MAX {
            core::arch::wasm32::unreachable();
        }
        // SAFETY: the page was given a moment ago and nobody else knows of it.
        unsafe { core::ptr::write_bytes((before * PAGE_BYTES) as *mut u8, 1, PAGE_BYTES) };
    }
}

pub(crate) fn allocate_without_end() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(black_box(vec![1; 1 << 20]));
    }
}
